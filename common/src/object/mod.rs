//! Objects in the store: the superblock, data objects, map parts and checkpoints.

pub mod checkpoint;
pub mod data;
pub mod map_part;
pub mod prefix;
pub mod superblock;

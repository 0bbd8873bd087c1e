//! Writes the fixtures as first inputs into `corpus/`: with them, a fuzzer starts at valid bytes.

use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let put = |target: &str, name: &str, choice: u8, bytes: &[u8]| {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), [&[choice], bytes].concat())
    };
    // Headers without the body: long inputs are slow.
    let part = lsvd_fixtures::map_part();
    put("object_header", "data", 1, &lsvd_fixtures::data_object()[..4096])?;
    put("object_header", "moved", 1, &lsvd_fixtures::moved_object()[..4096])?;
    put("map_part", "whole", 1, &part)?;
    put("map_part", "region", 2, &[&[0, 0, 0, 0, 7], &part[4096..4156]].concat())?;
    put("map_part", "table", 4, &part[4156..4220])?;
    put("checkpoint", "checkpoint", 1, &lsvd_fixtures::checkpoint())?;
    put("superblock", "superblock", 3, &lsvd_fixtures::superblock())?;
    put("log_superblock", "superblock", 1, &lsvd_fixtures::log_superblock()[..128])?;
    put("log_record", "writes", 1, &lsvd_fixtures::record_writes()[..4096])?;
    put("log_record", "skip", 1, &lsvd_fixtures::record_skip())?;
    let cache = lsvd_fixtures::cache_file();
    put("cache_file", "superblock", 1, &cache[..64])?;
    put("cache_file", "entry", 0, &[&cache[16..24], &cache[4096..4224]].concat())?;
    put("nbd", "requests", 1, &requests())?;
    Ok(())
}

/// Every command of a session once, and a farewell.
fn requests() -> Vec<u8> {
    let request = |kind: u16, offset: u64, len: u32, payload: &[u8]| {
        let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
        bytes.extend([0; 2]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(u64::from(kind).to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend(payload);
        bytes
    };
    let mut bytes = request(1, 1536, 512, &[5; 512]);
    for (kind, offset, len) in [(0, 1536, 512), (3, 0, 0), (4, 1536, 512), (5, 0, 512)] {
        bytes.extend(request(kind, offset, len, &[]));
    }
    for (kind, offset, len) in [(6, 1536, 1024), (7, 0, 4096), (2, 0, 0)] {
        bytes.extend(request(kind, offset, len, &[]));
    }
    bytes
}

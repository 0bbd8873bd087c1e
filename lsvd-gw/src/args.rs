//! The command line, as typed. What it means together with the configuration file is `config`'s
//! job.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Serves log-structured virtual disks: a write log and a cache on a local SSD in front of an
/// object store.
#[derive(Debug, Parser)]
#[command(name = "lsvd-gw", version, about, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) flags: Flags,
}

const EXAMPLES: &str = "\
Examples:
  lsvd-gw new demo 1                    one fresh 5 GiB disk in the embedded store, exported over NBD
  lsvd-gw mount demo disk1 disk2        two images that exist
  lsvd-gw mount demo disk1 --takeover   the gateway that had it is gone for good
  nbdinfo nbd://127.0.0.1/auto_lsvddev_0
  nvme connect -t tcp -a 127.0.0.1 -s 4420 -n nqn.2019-05.io.lsvd:cnode1

POOL is file:///DIR, a path, or a bare word: a directory of that name below LSVD_POOL_ROOT.
Exit codes: 0 closed cleanly, 1 a negative answer (no such image, in use), 2 failed.";

/// What to serve.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create (or recreate!) the images `auto_lsvddev_0` to `auto_lsvddev_NUM-1` and serve them
    New {
        /// Where the images are
        pool: String,
        /// How many
        #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
        num: u32,
        /// Size of each, as in 512m, 5g, 1t
        #[arg(long, default_value = "5g")]
        size: String,
        /// Sector size that clients see: 512 or 4096
        #[arg(long, default_value = "4096")]
        sector_size: u32,
        /// Recreate images even if another gateway has them open
        #[arg(long)]
        takeover: bool,
    },
    /// Open images and serve them
    Mount {
        /// Where the images are
        pool: String,
        /// Their names
        #[arg(required = true)]
        images: Vec<String>,
        /// Take images from the gateway that has them, or go on without its write log: what it had
        /// not sent to the store is lost
        #[arg(long)]
        takeover: bool,
    },
}

/// Flags for every command. Those that are absent come from the configuration file, then from
/// defaults that fit the machine.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Flags {
    /// Where NBD clients connect: unix:PATH, HOST:PORT on loopback, or none (repeatable) [default:
    /// 127.0.0.1:10809]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) nbd: Vec<String>,

    /// Where `new` and `mount` export over NVMe/TCP: IP:PORT or none [default: 127.0.0.1:4420]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) nvme: Option<String>,

    /// Socket for spdk-rpc and rpc.py, or none [default: /var/tmp/spdk.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) rpc_socket: Option<String>,

    /// Directory for write logs and the read cache; must survive a restart
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// What a flush waits for: local (the SSD) or backend (the store)
    #[arg(long, global = true, value_name = "POLICY", value_parser = ["local", "backend"])]
    pub(crate) flush: Option<String>,

    /// Configuration file: TOML, or what `spdk-rpc save_config` wrote
    #[arg(long, global = true, value_name = "FILE", env = "LSVD_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// RAM for data, as in 512m: the read cache and recent writes on their way to the store
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) cache_ram: Option<String>,

    /// SSD space for the read cache, as in 20g; 0 for none
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) cache_nvm: Option<String>,

    /// RAM for the read cache in GiB, as the original called it
    #[arg(
        long = "lsvd_cache_ram",
        global = true,
        value_name = "GIB",
        conflicts_with = "cache_ram"
    )]
    pub(crate) lsvd_cache_ram: Option<f64>,

    /// SSD space for the read cache in GiB, as the original called it
    #[arg(
        long = "lsvd_cache_nvm",
        global = true,
        value_name = "GIB",
        conflicts_with = "cache_nvm"
    )]
    pub(crate) lsvd_cache_nvm: Option<f64>,

    /// Directory for the read cache [default: in the state directory]
    #[arg(long = "lsvd_cache_path", alias = "cache-path", global = true, value_name = "DIR")]
    pub(crate) cache_path: Option<PathBuf>,

    /// Size of the write log of each image, when it is made
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) log_size: Option<String>,

    /// Size of an object in the store
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) batch_size: Option<String>,

    /// Ceph's configuration file, for pools in a cluster [env: CEPH_CONF]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ceph_conf: Option<PathBuf>,

    /// Ceph's user, without `client.` [env: LSVD_CEPH_USER] [default: admin]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) ceph_user: Option<String>,

    /// The user's keyring, instead of where Ceph's configuration says [env: LSVD_CEPH_KEYRING]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ceph_keyring: Option<PathBuf>,

    /// Threads that serve connections
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<usize>,

    /// Microseconds that a thread looks for more work before it sleeps; 0 for never [default: 120]
    #[arg(long, global = true, value_name = "US")]
    pub(crate) poll_us: Option<u64>,

    /// What to log, as in info or lsvd_engine=debug
    #[arg(long, global = true, value_name = "FILTER", env = "LSVD_LOG")]
    pub(crate) log: Option<String>,
}

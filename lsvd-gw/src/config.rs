//! What the gateway does, from flags, over the configuration file, over defaults that fit the
//! machine.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use humansize::{BINARY, format_size};
use lsvd_control::{SavedCall, saved_calls};
use lsvd_engine::FlushPolicy;
use lsvd_nbd::Address;
use lsvd_store::Environment;
use serde::Deserialize;

use crate::args::Args;
use crate::machine;

/// The port that the NBD protocol has registered.
const NBD_DEFAULT: &str = "127.0.0.1:10809";

/// The port that NVMe/TCP has registered, on loopback: there is no authentication.
const NVME_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4420);

/// What hosts of the original connect to.
const NVME_NQN: &str = "nqn.2019-05.io.lsvd:cnode1";
const NVME_SERIAL: &str = "SPDK_000001";
const NVME_MODEL: &str = "LSVD NVMe controller";

/// Microseconds that a thread polls before it sleeps: about two small writes to a fast SSD.
const POLL_US: u64 = 120;

/// Checked settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) nbd: Vec<Address>,
    /// Where images of the command line are exported over NVMe/TCP.
    pub(crate) nvme: Option<SocketAddr>,
    /// The subsystem that they are exported in.
    pub(crate) nvme_nqn: String,
    pub(crate) nvme_serial: String,
    pub(crate) nvme_model: String,
    pub(crate) rpc_socket: Option<PathBuf>,
    /// What a saved configuration asks for, once the command's images are open.
    pub(crate) saved_calls: Vec<SavedCall>,
    pub(crate) state_dir: PathBuf,
    pub(crate) cache_dir: PathBuf,
    pub(crate) flush: FlushPolicy,
    pub(crate) cache_ram: u64,
    pub(crate) cache_nvm: u64,
    /// The size was asked for; otherwise a cache that is there keeps the size it has.
    pub(crate) cache_nvm_given: bool,
    pub(crate) log_size: u64,
    pub(crate) batch_size: u64,
    pub(crate) batch_age: Duration,
    /// What the meaning and the place of a pool depend on.
    pub(crate) environment: Environment,
    pub(crate) threads: usize,
    pub(crate) poll: Duration,
    pub(crate) log: String,
}

/// The configuration file. Sizes are text (`"20g"`) or bytes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    nbd: Option<Vec<String>>,
    nvme: Option<String>,
    nvme_nqn: Option<String>,
    nvme_serial: Option<String>,
    nvme_model: Option<String>,
    rpc_socket: Option<String>,
    #[serde(skip)]
    saved_calls: Vec<SavedCall>,
    state_dir: Option<PathBuf>,
    flush: Option<String>,
    cache_ram: Option<Size>,
    cache_nvm: Option<Size>,
    cache_path: Option<PathBuf>,
    log_size: Option<Size>,
    batch_size: Option<Size>,
    batch_age_ms: Option<u64>,
    ceph_conf: Option<PathBuf>,
    ceph_user: Option<String>,
    ceph_keyring: Option<PathBuf>,
    threads: Option<usize>,
    poll_us: Option<u64>,
    log: Option<String>,
}

/// Every key of the file, for suggestions; a test compares them with [`File`].
const KEYS: [&str; 20] = [
    "nbd",
    "nvme",
    "nvme_nqn",
    "nvme_serial",
    "nvme_model",
    "rpc_socket",
    "state_dir",
    "flush",
    "cache_ram",
    "cache_nvm",
    "cache_path",
    "log_size",
    "batch_size",
    "batch_age_ms",
    "ceph_conf",
    "ceph_user",
    "ceph_keyring",
    "threads",
    "poll_us",
    "log",
];

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    Text(String),
}

impl Size {
    fn bytes(&self, what: &str) -> anyhow::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(*bytes),
            Self::Text(text) => parse_size(what, text),
        }
    }
}

/// A size as people write it: K, M, G and T are powers of two.
pub(crate) fn parse_size(what: &str, text: &str) -> anyhow::Result<u64> {
    let parser = parse_size::Config::new().with_binary();
    parser
        .parse_size(text)
        .with_context(|| format!("{what} {text:?} is no size; write it as in 512m or 20g"))
}

fn gib(what: &str, gib: f64) -> anyhow::Result<u64> {
    ensure!((0.0..=1e6).contains(&gib), "{what} {gib} is out of range; it counts in GiB");
    // Below 2^50, so a float of this size is exact to the byte.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok((gib * f64::from(1 << 30)) as u64)
}

impl File {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("read the configuration file {}", path.display()))?;
        if text.trim_start().starts_with('{') {
            let saved_calls = saved_calls(&text)
                .with_context(|| format!("saved configuration {}", path.display()))?;
            return Ok(Self { saved_calls, ..Self::default() });
        }
        Self::parse(&text).with_context(|| format!("configuration file {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let table: toml::Table = text.parse()?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let near = KEYS
                .iter()
                .map(|known| (strsim::jaro_winkler(known, key), known))
                .filter(|(nearness, _)| *nearness > 0.75)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            match near {
                Some((_, near)) => bail!("unknown key {key:?}; did you mean {near:?}?"),
                None => bail!("unknown key {key:?}; there are: {}", KEYS.join(", ")),
            }
        }
        Ok(toml::from_str(text)?)
    }
}

impl Settings {
    /// Puts everything together.
    pub(crate) fn resolve(args: &Args) -> anyhow::Result<Self> {
        let flags = &args.flags;
        let file = flags.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        let state_dir = match flags.state_dir.clone().or(file.state_dir) {
            Some(dir) => dir,
            None => machine::default_state_dir()?,
        };
        let cache_path = flags.cache_path.clone().or(file.cache_path);
        let cache_dir = cache_path.unwrap_or_else(|| state_dir.join("cache"));
        let free = machine::free_bytes(&state_dir);
        let size = |flag: &Option<String>, file: &Option<Size>, what: &str, default: u64| match (
            flag, file,
        ) {
            (Some(text), _) => parse_size(what, text),
            (None, Some(size)) => size.bytes(what),
            (None, None) => Ok(default),
        };
        let cache_ram = match flags.lsvd_cache_ram {
            Some(count) => gib("--lsvd_cache_ram", count)?,
            None => {
                let default = machine::default_cache_ram();
                size(&flags.cache_ram, &file.cache_ram, "cache_ram", default)?
            }
        };
        let cache_nvm_given =
            flags.lsvd_cache_nvm.is_some() || flags.cache_nvm.is_some() || file.cache_nvm.is_some();
        let cache_nvm = match flags.lsvd_cache_nvm {
            Some(count) => gib("--lsvd_cache_nvm", count)?,
            None => {
                let default = machine::share(free, 2, 64 << 20, 8 << 30);
                size(&flags.cache_nvm, &file.cache_nvm, "cache_nvm", default)?
            }
        };
        let log_default = machine::share(free, 1, 64 << 20, 1 << 30);
        let threads = flags.threads.or(file.threads).unwrap_or_else(machine::default_threads);
        ensure!((1..=256).contains(&threads), "threads {threads}: there can be 1 to 256");
        let poll_us = flags.poll_us.or(file.poll_us).unwrap_or(POLL_US);
        ensure!(poll_us <= 10_000, "poll_us {poll_us}: at most 10000");
        let process = Environment::of_process();
        let batch_age = file.batch_age_ms.unwrap_or(1500);
        ensure!((1..=600_000).contains(&batch_age), "batch_age_ms {batch_age}: 1 to 600000");
        Ok(Self {
            nbd: addresses(&flags.nbd, file.nbd)?,
            nvme: nvme_address(flags.nvme.as_deref().or(file.nvme.as_deref()))?,
            nvme_nqn: file.nvme_nqn.unwrap_or_else(|| String::from(NVME_NQN)),
            nvme_serial: file.nvme_serial.unwrap_or_else(|| String::from(NVME_SERIAL)),
            nvme_model: file.nvme_model.unwrap_or_else(|| String::from(NVME_MODEL)),
            rpc_socket: rpc_socket(flags.rpc_socket.as_deref().or(file.rpc_socket.as_deref()))?,
            saved_calls: file.saved_calls,
            cache_dir,
            state_dir,
            flush: flush_policy(flags.flush.as_deref().or(file.flush.as_deref()))?,
            cache_ram,
            cache_nvm: cache_nvm / 4096 * 4096,
            cache_nvm_given,
            log_size: size(&flags.log_size, &file.log_size, "log_size", log_default)? / 4096 * 4096,
            batch_size: size(&flags.batch_size, &file.batch_size, "batch_size", 8 << 20)?,
            batch_age: Duration::from_millis(batch_age),
            environment: Environment {
                ceph_conf: flags.ceph_conf.clone().or(process.ceph_conf).or(file.ceph_conf),
                ceph_user: flags.ceph_user.clone().or(process.ceph_user).or(file.ceph_user),
                ceph_keyring: flags
                    .ceph_keyring
                    .clone()
                    .or(process.ceph_keyring)
                    .or(file.ceph_keyring),
                ..process
            },
            threads,
            poll: Duration::from_micros(poll_us),
            log: flags.log.clone().or(file.log).unwrap_or_else(|| String::from("info")),
        })
    }
}

fn flush_policy(text: Option<&str>) -> anyhow::Result<FlushPolicy> {
    match text {
        None | Some("local") => Ok(FlushPolicy::Local),
        Some("backend") => Ok(FlushPolicy::Backend),
        Some(other) => bail!("flush {other:?}: it is \"local\" or \"backend\""),
    }
}

fn addresses(flags: &[String], file: Option<Vec<String>>) -> anyhow::Result<Vec<Address>> {
    let texts = match (flags.is_empty(), file) {
        (false, _) => flags.to_vec(),
        (true, Some(file)) => file,
        (true, None) => vec![String::from(NBD_DEFAULT)],
    };
    if texts.iter().any(|text| text == "none") {
        ensure!(texts.len() == 1, "nbd: \"none\" goes with no other address");
        return Ok(Vec::new());
    }
    texts.iter().map(|text| address(text)).collect()
}

fn nvme_address(text: Option<&str>) -> anyhow::Result<Option<SocketAddr>> {
    match text {
        None => Ok(Some(NVME_DEFAULT)),
        Some("none") => Ok(None),
        Some(text) => {
            let resolve = text.replace("localhost:", "127.0.0.1:");
            let address = resolve.parse();
            Ok(Some(address.with_context(|| format!("nvme {text:?} is neither IP:PORT nor none"))?))
        }
    }
}

fn rpc_socket(text: Option<&str>) -> anyhow::Result<Option<PathBuf>> {
    match text {
        None => Ok(Some(PathBuf::from(lsvd_control::DEFAULT_PATH))),
        Some("none") => Ok(None),
        Some("") => bail!("rpc_socket is empty; it is a path or none"),
        Some(path) => Ok(Some(PathBuf::from(path))),
    }
}

fn address(text: &str) -> anyhow::Result<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        ensure!(!path.is_empty(), "nbd {text:?}: a path follows unix:");
        return Ok(Address::Unix(PathBuf::from(path)));
    }
    let resolve = text.replace("localhost:", "127.0.0.1:");
    let address = resolve
        .parse()
        .with_context(|| format!("nbd {text:?} is neither unix:PATH, HOST:PORT, nor none"))?;
    Ok(Address::Tcp(address))
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes| format_size(bytes, BINARY);
        write!(
            f,
            "state in {}, write log {} an image, read cache {} RAM and {} SSD in {}, {} threads, \
             flush waits for the {}",
            self.state_dir.display(),
            size(self.log_size),
            size(self.cache_ram),
            size(self.cache_nvm),
            self.cache_dir.display(),
            self.threads,
            match self.flush {
                FlushPolicy::Local => "local SSD",
                FlushPolicy::Backend => "store",
            }
        )
    }
}

#[cfg(test)]
mod test {
    use clap::Parser as _;

    use super::*;

    fn resolve(words: &[&str]) -> anyhow::Result<Settings> {
        let words = std::iter::once("lsvd-gw").chain(words.iter().copied());
        Settings::resolve(&Args::try_parse_from(words)?)
    }

    #[test]
    fn an_unknown_key_is_an_error_with_a_suggestion() {
        let error = File::parse("cache_rma = \"1g\"").unwrap_err().to_string();
        assert!(error.contains("did you mean \"cache_ram\""), "{error}");
        let error = File::parse("zzz = 1").unwrap_err().to_string();
        assert!(error.contains("there are: nbd, nvme, "), "{error}");
    }

    #[test]
    fn every_key_of_the_file_is_known() {
        let text = "nbd = [\"none\"]\nnvme = \"none\"\nnvme_nqn = \"nqn.2019-05.io.x:y\"\n\
                    nvme_serial = \"s\"\nnvme_model = \"m\"\nrpc_socket = \"none\"\n\
                    state_dir = \"/s\"\nflush = \"backend\"\ncache_ram = 1\n\
                    cache_nvm = \"2g\"\ncache_path = \"/c\"\nlog_size = 4\nbatch_size = 5\n\
                    batch_age_ms = 6\nceph_conf = \"/c\"\n\
                    ceph_user = \"u\"\nceph_keyring = \"/k\"\nthreads = 7\npoll_us = 8\nlog = \"debug\"\n";
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table.len(), KEYS.len());
        let file = File::parse(text).unwrap();
        assert_eq!(file.threads, Some(7));
        assert_eq!(file.cache_nvm.unwrap().bytes("x").unwrap(), 2 << 30);
    }

    #[test]
    fn the_originals_flags_count_in_gib() {
        let settings = resolve(&["--lsvd_cache_ram", "1.5", "--lsvd_cache_nvm", "4"]).unwrap();
        assert_eq!(settings.cache_ram, 3 << 29);
        assert_eq!(settings.cache_nvm, 4 << 30);
        assert!(resolve(&["--lsvd_cache_ram", "-1"]).is_err());
        assert!(resolve(&["--lsvd_cache_ram", "1", "--cache-ram", "1g"]).is_err());
    }

    #[test]
    fn addresses_are_checked() {
        assert_eq!(resolve(&[]).unwrap().nbd, [Address::Tcp(NBD_DEFAULT.parse().unwrap())]);
        assert!(resolve(&["--nbd", "none"]).unwrap().nbd.is_empty());
        let two = resolve(&["--nbd", "unix:/x", "--nbd", "localhost:1"]).unwrap();
        assert_eq!(two.nbd.len(), 2);
        assert!(resolve(&["--nbd", "none", "--nbd", "unix:/x"]).is_err());
        assert!(resolve(&["--nbd", "nowhere"]).is_err());
    }
}

//! What is logged, and changing that while the gateway runs.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;

use lsvd_control::LogLevel;
use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;

/// Parts of the program whose debug events can be switched on by themselves.
const PARTS: [&str; 6] =
    ["lsvd_control", "lsvd_engine", "lsvd_gw", "lsvd_nbd", "lsvd_nvmet", "lsvd_store"];

/// The filter of the log. It starts as it was asked for; the first change over the control socket
/// replaces it by a level and a set of parts.
pub(crate) struct LogControl {
    state: Mutex<State>,
    reload: Box<dyn Fn(EnvFilter) + Send + Sync>,
}

struct State {
    level: LogLevel,
    parts: BTreeSet<String>,
}

impl LogControl {
    /// Starts to log on standard error.
    pub(crate) fn start(filter: &str) -> anyhow::Result<Self> {
        let parse = EnvFilter::try_new(filter)
            .map_err(|error| anyhow::anyhow!("log filter {filter:?}: {error}"))?;
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(parse)
            .with_writer(std::io::stderr)
            // Colours are for people; in a file they are noise.
            .with_ansi(std::io::stderr().is_terminal())
            .with_filter_reloading();
        let handle = subscriber.reload_handle();
        subscriber.init();
        let reload = Box::new(move |filter| {
            if let Err(error) = handle.reload(filter) {
                tracing::warn!(%error, "the log's filter stays as it was");
            }
        });
        let level = match filter {
            "error" => LogLevel::Error,
            "warn" => LogLevel::Warning,
            "debug" => LogLevel::Info,
            "trace" => LogLevel::Debug,
            _ => LogLevel::Notice,
        };
        Ok(Self { state: Mutex::new(State { level, parts: BTreeSet::new() }), reload })
    }

    pub(crate) fn level(&self) -> LogLevel {
        self.state.lock().level
    }

    pub(crate) fn set_level(&self, level: LogLevel) {
        let mut state = self.state.lock();
        state.level = level;
        self.apply(&state);
    }

    /// Every part, and whether its debug events are on.
    pub(crate) fn parts(&self) -> Vec<(String, bool)> {
        let state = self.state.lock();
        PARTS.iter().map(|part| ((*part).to_owned(), state.parts.contains(*part))).collect()
    }

    /// False if there is no such part.
    pub(crate) fn set_part(&self, part: &str, on: bool) -> bool {
        if !PARTS.contains(&part) {
            return false;
        }
        let mut state = self.state.lock();
        if on {
            state.parts.insert(part.to_owned());
        } else {
            state.parts.remove(part);
        }
        self.apply(&state);
        true
    }

    fn apply(&self, state: &State) {
        // SPDK has a level more than we do: its NOTICE is what is worth knowing at any time.
        let level = match state.level {
            LogLevel::Error => "error",
            LogLevel::Warning => "warn",
            LogLevel::Notice => "info",
            LogLevel::Info => "debug",
            LogLevel::Debug => "trace",
        };
        let parts = state.parts.iter().map(|part| format!(",{part}=debug"));
        (self.reload)(EnvFilter::new(level.to_owned() + &parts.collect::<String>()));
    }
}

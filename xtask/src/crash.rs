//! The crash loops of `lsvd-gw/tests`, with as many rounds as wanted and the gateway's default sizes.

use crate::suite;

/// How often, and which of the two loops.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// How often to kill the gateway
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Wipe the state directory after each kill: the image must be a prefix of what was acknowledged
    #[arg(long)]
    wipe: bool,
}

/// Runs one of the loops.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let test = if args.wipe {
        "crash::without_its_state_directory_the_image_is_a_prefix"
    } else {
        "crash::what_was_acknowledged_survives_kills"
    };
    let words = ["-p", "lsvd-gw", "--test", "system", "--", "--exact", "--nocapture", test];
    suite::show(&words, &[("LSVD_CRASH_ROUNDS", &args.rounds.to_string())])
}

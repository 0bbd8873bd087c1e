//! What a misspelt word may have been meant to be.

/// How alike two words must be for one to be suggested for the other; as in the gateway's own
/// configuration.
const NEARNESS_MIN: f64 = 0.75;

/// The end of a message about a word that is not among the known ones.
pub(crate) fn suggestion(word: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|known| (strsim::jaro_winkler(known, word), known))
        .filter(|(nearness, _)| *nearness > NEARNESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, near)) => format!("; did you mean {near:?}?"),
        None => format!("; there are: {}", known.join(", ")),
    }
}

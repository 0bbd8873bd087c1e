//! Numbers as people write and read them.

use humansize::{BINARY, format_size};
use parse_size::Config;

/// A byte count in binary units, rounded: `1.5 GiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    format_size(bytes, BINARY.decimal_places(1))
}

/// A byte count rounded and exact: `1.5 GiB (1610612736 bytes)`.
#[must_use]
pub fn exact_bytes(count: u64) -> String {
    format!("{} ({count} {})", bytes(count), if count == 1 { "byte" } else { "bytes" })
}

/// A count with its noun: `1 object`, `2 objects`.
#[must_use]
pub fn count(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Why a text is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number with an optional unit.
    #[error("not a size; write a number with K, M, G or T (powers of two), such as 100g or 512M")]
    Form,
    /// Above 2^64 bytes.
    #[error("larger than any size")]
    TooLarge,
}

/// Reads a size in bytes: a number with an optional unit, K, M, G and T being powers of two however
/// they are spelt (`100g`, `100GB`, `100GiB`).
///
/// # Errors
/// What is wrong with it.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let trimmed = text.trim();
    // The parser takes exponents (`1e3`), spaces and underscores anywhere, which is generous to
    // slips of the finger.
    let digits = trimmed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    let unit = trimmed[digits.len()..].to_ascii_lowercase();
    let known = matches!(
        unit.as_str(),
        "" | "b"
            | "k"
            | "kb"
            | "kib"
            | "m"
            | "mb"
            | "mib"
            | "g"
            | "gb"
            | "gib"
            | "t"
            | "tb"
            | "tib"
    );
    if !is_plain || !known {
        return Err(SizeError::Form);
    }
    Config::new().with_binary().parse_size(trimmed).map_err(|error| match error {
        parse_size::Error::PosOverflow => SizeError::TooLarge,
        _ => SizeError::Form,
    })
}

const SECOND_MS: u64 = 1000;
const DAY_S: u64 = 24 * 3600;

/// Milliseconds since 1970 as UTC, to the second: `2026-11-22 19:48:24 UTC`. Any value gives some
/// text.
#[must_use]
pub fn time(ms: u64) -> String {
    let seconds = ms / SECOND_MS;
    let (year, month, day) = civil(seconds / DAY_S);
    let (hour, minute, second) = (seconds % DAY_S / 3600, seconds % 3600 / 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// How long ago `then_ms` was at `now_ms`, both in milliseconds since 1970: `3 h ago`.
#[must_use]
pub fn ago(then_ms: u64, now_ms: u64) -> String {
    let Some(past) = now_ms.checked_sub(then_ms) else {
        return "in the future, by this clock".to_owned();
    };
    let seconds = past / SECOND_MS;
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / DAY_S),
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Years start in March here, so that the leap day is the last day of its year and months before it
/// do not shift.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / ERA, shifted % ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_however_they_are_spelt() {
        for text in ["100g", "100G", "100GB", "100GiB", "102400m", "0.09765625t"] {
            assert_eq!(parse_size(text), Ok(107_374_182_400), "{text}");
        }
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("1.5k"), Ok(1536));
        assert_eq!(parse_size("0"), Ok(0));
    }

    #[test]
    fn slips_of_the_finger_are_no_sizes() {
        for text in ["", "g", "-1g", "1gg", "1 g2", "1e3", "1_0", "ten", "1.2.3g", "1x", "0x10"] {
            assert_eq!(parse_size(text), Err(SizeError::Form), "{text}");
        }
        assert_eq!(parse_size("99999999999t"), Err(SizeError::TooLarge));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399_999, "2000-02-28 23:59:59 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (951_868_800_000, "2000-03-01 00:00:00 UTC"),
            (1_709_251_199_000, "2024-02-29 23:59:59 UTC"),
            (1_735_689_599_000, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(time(ms), text);
        }
        assert!(!time(u64::MAX).is_empty());
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut previous = civil(0);
        for day in 1..200_000 {
            let next = civil(day);
            let follows = match next {
                (year, 1, 1) => previous == (year - 1, 12, 31),
                (year, month, 1) => {
                    previous.0 == year && previous.1 == month - 1 && previous.2 >= 28
                }
                (year, month, day) => previous == (year, month, day - 1),
            };
            assert!(follows, "{previous:?} {next:?}");
            previous = next;
        }
    }

    #[test]
    fn ages_are_rounded_down() {
        assert_eq!(ago(0, 59_999), "59 s ago");
        assert_eq!(ago(0, 3_600_000), "1 h ago");
        assert_eq!(ago(0, 10 * 86_400_000), "10 days ago");
        assert_eq!(ago(2, 1), "in the future, by this clock");
    }

    #[test]
    fn counts_agree_with_their_nouns() {
        assert_eq!(
            (count(1, "object"), count(0, "object")),
            ("1 object".into(), "0 objects".into())
        );
        assert_eq!(exact_bytes(1536), "1.5 KiB (1536 bytes)");
    }
}

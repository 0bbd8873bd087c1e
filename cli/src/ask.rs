//! Asking a person before something is destroyed.

use std::io::{self, IsTerminal, Write};

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Go on.
    Yes,
    /// Leave everything as it is.
    No,
    /// No terminal, so nobody to ask: the program needs an explicit flag.
    NobodyThere,
}

/// Asks on the terminal; everything but a clear yes is a no.
///
/// # Errors
/// The terminal cannot be read or written.
pub fn ask(question: &str) -> io::Result<Consent> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(Consent::NobodyThere);
    }
    let mut stderr = io::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(understand(&answer))
}

fn understand(answer: &str) -> Consent {
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Consent::Yes,
        _ => Consent::No,
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_a_yes() {
        assert_eq!(understand("yes\n"), Consent::Yes);
        assert_eq!(understand("Y\n"), Consent::Yes);
        for answer in ["", "\n", "no\n", "yess\n", "j\n"] {
            assert_eq!(understand(answer), Consent::No, "{answer:?}");
        }
    }
}

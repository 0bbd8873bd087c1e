//! What a program says to people while it works, on stderr.

use std::io::Write;

use crate::exit::one_line;

/// The voice of a program. Copied to wherever something is worth saying.
#[derive(Clone, Copy, Debug)]
pub struct Talk {
    tool: &'static str,
    quiet: bool,
}

impl Talk {
    /// The voice of `tool`; `quiet` leaves warnings only.
    #[must_use]
    pub fn new(tool: &'static str, quiet: bool) -> Self {
        Self { tool, quiet }
    }

    /// Whether only warnings are wanted.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Says what is going on, unless quiet.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Says what must not be missed.
    pub fn warn(&self, text: &str) {
        // Without a stderr there is nobody to tell, and the work goes on.
        let _ = writeln!(std::io::stderr(), "{}: {}", self.tool, one_line(text));
    }

    /// Shows what a question is about: several lines, without the program's name.
    pub fn show(&self, text: &str) {
        let _ = write!(std::io::stderr(), "{text}");
    }
}

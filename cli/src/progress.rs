//! Progress of long work: a bar on a terminal, nothing anywhere else.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::talk::Talk;

/// A progress bar on stderr that is gone when dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar for `total` steps of doing `what`.
    #[must_use]
    pub fn new(talk: Talk, what: &'static str, total: u64) -> Self {
        // The target hides itself when stderr is no terminal.
        let target = if talk.is_quiet() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let style = "{msg} {wide_bar} {pos}/{len} ({eta} left)";
        let style = ProgressStyle::with_template(style).expect("the template is well formed");
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style);
        bar.set_message(what);
        Self { bar }
    }

    /// `done` steps of `total` are behind us.
    pub fn set(&self, done: usize, total: usize) {
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
    }

    /// One more step is behind us.
    pub fn step(&self) {
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_template_is_well_formed_and_a_hidden_bar_counts() {
        let progress = Progress::new(Talk::new("test", true), "counting", 3);
        progress.set(1, 4);
        progress.step();
        assert_eq!((progress.bar.position(), progress.bar.length()), (2, Some(4)));
    }
}

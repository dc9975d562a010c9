//! Progress on standard error, for people at a terminal.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TICK: Duration = Duration::from_millis(100);

/// How far long work has come. Shows nothing when standard error is no terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Work of `bytes_total` bytes, where that is known. Nothing is shown when standard input is
    /// a terminal too: somebody is typing there.
    pub(crate) fn bytes(bytes_total: Option<u64>, is_typed: bool) -> Self {
        if is_typed || !io::stderr().is_terminal() {
            return Self {
                bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()),
            };
        }
        let (bar, template) = match bytes_total {
            Some(total) => (
                ProgressBar::new(total),
                "{bar:32} {percent:>3} %  {bytes} at {bytes_per_sec}, {eta} left",
            ),
            None => (
                ProgressBar::new_spinner(),
                "{spinner} {bytes} at {bytes_per_sec}",
            ),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Work of unknown size, with the time it takes so far.
    pub(crate) fn time(what: &'static str) -> Self {
        if !io::stderr().is_terminal() {
            return Self {
                bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()),
            };
        }
        let bar = ProgressBar::new_spinner().with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self { bar }
    }

    /// So many more bytes are done.
    pub(crate) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

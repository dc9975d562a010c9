//! Progress on standard error, for people at a terminal.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Of a share.
const WHOLE: u64 = 1000;

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

    /// Work whose share and state are told with [`show`](Self::show), if at all.
    pub(crate) fn share(is_wanted: bool) -> Self {
        if !is_wanted || !io::stderr().is_terminal() {
            return Self {
                bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()),
            };
        }
        let bar = ProgressBar::new(WHOLE);
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {msg}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// This share of the work is done, between 0 and 1.
    pub(crate) fn show(&self, share: f64, text: &str) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "it is between 0 and 1"
        )]
        let done = (share.clamp(0.0, 1.0) * WHOLE as f64) as u64;
        self.bar.set_position(done);
        self.bar.set_message(text.to_owned());
    }

    /// Prints something else meanwhile.
    pub(crate) fn aside(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Takes it away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
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

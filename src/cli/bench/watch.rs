//! What can end a run before its time, and how far it is.
//!
//! Owns the patience with a broker that is gone or silent, the count of lost connections, and what people at a
//! terminal see. Must not know: what is published or read.

use std::time::Duration;

use falcon::clock::Instant;
use falcon_client::Client;

use super::stage::Stage;
use super::tally::{Phase, Span};
use crate::cli::failure::{CliError, Exit};
use crate::cli::notice;
use crate::cli::progress::Progress;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Without --timeout: long enough for a restart.
const GONE_MAX: Duration = Duration::from_secs(5);
/// Without --timeout: a device that stands still for seconds is worth measuring.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// Of an open loop: nothing is acknowledged while nothing is due.
const BETWEEN_RECORDS: Duration = Duration::from_secs(2);

/// Looks at a run now and then.
pub(super) struct Watch {
    patience: Option<Duration>,
    is_json: bool,
    progress: Progress,
    look: Look,
    speed: Speed,
    reconnects: u64,
}

/// What was seen at the last look.
struct Look {
    connections: Vec<Option<u64>>,
    /// Since when connections are missing.
    lost: Option<Instant>,
    seen: u64,
    /// When something was acknowledged or delivered.
    moved: Instant,
}

impl Watch {
    pub(super) fn new(timeout: Option<Duration>, is_json: bool) -> Self {
        Self {
            patience: timeout,
            is_json,
            progress: Progress::share(!is_json),
            look: Look {
                connections: Vec::new(),
                lost: None,
                seen: 0,
                moved: Instant::now(),
            },
            speed: Speed::default(),
            reconnects: 0,
        }
    }

    /// Ends when the broker was gone or silent for too long, with what to say.
    ///
    /// CANCEL SAFETY: what was seen stays.
    pub(super) async fn until_it_fails(&mut self, stage: &Stage) -> CliError {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.show(stage);
            self.follow_connections(&stage.watched());
            let gone_max = self.patience.unwrap_or(GONE_MAX);
            if self.look.lost.is_some_and(|at| at.elapsed() >= gone_max) {
                let why = format!("the broker is gone: no connection for {gone_max:?}");
                let remedy = "start it, or allow a longer --timeout";
                return CliError::new(Exit::Unreachable, "bench", why, remedy);
            }
            let silent_max = self.patience.unwrap_or(SILENT_MAX).max(BETWEEN_RECORDS);
            if self.silence(stage) >= silent_max {
                let why = format!("the broker has answered nothing for {silent_max:?}");
                let remedy = "look at its log and its device, or allow a longer --timeout";
                return CliError::new(Exit::TimedOut, "bench", why, remedy);
            }
        }
    }

    /// How long nothing was acknowledged or delivered that should have been.
    fn silence(&mut self, stage: &Stage) -> Duration {
        let (seen, _) = stage.tally.seen();
        let look = &mut self.look;
        if seen != look.seen || look.lost.is_some() || !is_moving(stage.tally.phase()) {
            look.seen = seen;
            look.moved = Instant::now();
        }
        look.moved.elapsed()
    }

    fn follow_connections(&mut self, clients: &[Client]) {
        let connections: Vec<_> = clients.iter().map(Client::connection_number).collect();
        // Connections are only added; those made since have nothing to be compared with.
        let mut pairs = self.look.connections.iter().zip(&connections);
        let is_other = pairs.any(|(before, now)| before.is_some() && before != now);
        let is_missing = connections.contains(&None);
        if (is_other || is_missing) && self.look.lost.is_none() {
            self.look.lost = Some(Instant::now());
            self.say(false);
        }
        if !is_missing && self.look.lost.take().is_some() {
            self.reconnects += 1;
            self.say(true);
        }
        self.look.connections = connections;
    }

    /// Looks for the last time. Takes the bar away, because what follows is printed; says how often connections were
    /// lost and made again.
    pub(super) fn end(mut self, stage: &Stage) -> u64 {
        self.follow_connections(&stage.watched());
        self.progress.clear();
        self.reconnects
    }

    fn say(&self, is_up: bool) {
        self.progress
            .aside(|| notice::say_connection(self.is_json, is_up, ""));
    }

    fn show(&mut self, stage: &Stage) {
        if !self.progress.is_shown() {
            return;
        }
        let tally = &stage.tally;
        let (records, bytes) = tally.seen();
        let phase = tally.phase();
        let (share, text) = match phase {
            Phase::Preparing => (0.0, "preparing".to_owned()),
            Phase::Filling { records: total } => (ratio(records, total), "filling".to_owned()),
            Phase::Timed(span) | Phase::Drained(span) => timed(span),
            Phase::Counted { from, total } => {
                let (done, _) = tally.measured();
                (ratio(done, total), counted(from))
            }
            Phase::Rounds { from, done, total } => (ratio(done, total), counted(from)),
            Phase::Ended { .. } => (1.0, "closing".to_owned()),
        };
        let speed = self.speed.show(records, bytes);
        self.progress.show(share, &format!("{text}{speed}"));
    }
}

fn is_moving(phase: Phase) -> bool {
    match phase {
        // A rebalance has a limit of its own.
        Phase::Preparing | Phase::Rounds { .. } | Phase::Ended { .. } => false,
        Phase::Filling { .. } | Phase::Timed(_) | Phase::Drained(_) | Phase::Counted { .. } => true,
    }
}

fn counted(from: Instant) -> String {
    format!("measuring, {:.1} s", from.elapsed().as_secs_f64())
}

fn timed(span: Span) -> (f64, String) {
    let now = Instant::now().min(span.until);
    let all = span.until.since(span.begun).as_secs_f64();
    let share = now.since(span.begun).as_secs_f64() / all;
    let (what, begun, end) = if now < span.from {
        ("warming up", span.begun, span.from)
    } else {
        ("measuring", span.from, span.until)
    };
    let (took, length) = (now.since(begun), end.since(begun));
    let text = format!("{what}, {:.1} of {length:?}", took.as_secs_f64());
    (share, text)
}

#[expect(clippy::cast_precision_loss, reason = "for a bar")]
fn ratio(done: u64, total: u64) -> f64 {
    done as f64 / total.max(1) as f64
}

/// What was seen a second ago.
#[derive(Default)]
struct Speed {
    at: Option<(Instant, u64, u64)>,
    text: String,
}

impl Speed {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    fn show(&mut self, records: u64, bytes: u64) -> &str {
        let now = Instant::now();
        let (at, records_then, bytes_then) = *self.at.get_or_insert((now, records, bytes));
        let seconds = now.since(at).as_secs_f64();
        if seconds >= 1.0 {
            let rate = records.saturating_sub(records_then) as f64 / seconds;
            let megabytes = bytes.saturating_sub(bytes_then) as f64 / seconds / 1e6;
            self.text = format!(", {rate:.0} records/s, {megabytes:.1} MB/s");
            self.at = Some((now, records, bytes));
        }
        &self.text
    }
}

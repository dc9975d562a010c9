//! Notices when the machine stands still.
//!
//! A thread sleeps for a short time again and again; when it wakes up late, so may everybody else. Promises: it
//! has ended when [`Pulse::stop`] returned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::CrashError;
use crate::history::{Entry, Op, Outcome, ValueId, now_ns};

const BEAT: Duration = Duration::from_millis(20);
/// Lateness that counts.
const LATE: Duration = Duration::from_millis(500);

/// The thread.
#[derive(Debug)]
pub(super) struct Pulse {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(Vec<Entry>, u64)>>,
}

impl Pulse {
    pub(super) fn start() -> Result<Self, CrashError> {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = thread::Builder::new().name("pulse".into());
        let thread = thread.spawn(move || beat(&is_over));
        let thread = thread.map_err(|error| CrashError::Program(format!("no thread: {error}")))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// When the machine stood still, and the longest time it was late, milliseconds.
    pub(super) fn stop(mut self) -> (Vec<Entry>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take();
        thread.map_or_else(Default::default, |thread| thread.join().unwrap_or_default())
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn beat(is_over: &AtomicBool) -> (Vec<Entry>, u64) {
    let (mut late, mut longest) = (Vec::new(), Duration::ZERO);
    while !is_over.load(Ordering::Relaxed) {
        let begun = now_ns();
        thread::sleep(BEAT);
        let woken = now_ns();
        let slept = Duration::from_nanos(woken.saturating_sub(begun));
        let lateness = slept.saturating_sub(BEAT);
        longest = longest.max(lateness);
        if lateness > LATE {
            late.push(Entry {
                op: Op::Hiccup,
                outcome: Outcome::Ok,
                partition: 0,
                actor: 0,
                value: ValueId::FOREIGN,
                offset: 0,
                invoked_ns: begun,
                completed_ns: woken,
            });
        }
    }
    (late, u64::try_from(longest.as_millis()).unwrap_or(u64::MAX))
}

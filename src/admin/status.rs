//! What the broker is doing, and whether that is fit for traffic.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use falcon_protocol::TopicId;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::catalog::Catalog;
use crate::clock;
use crate::metrics::{Beat, Metrics};
use crate::store::{Damage, Store};
use crate::writer::{Views, WriteState};

/// A loop that has been in one turn for this long is taken to hang. Long, because what follows is a
/// restart, and a slow device is no better after one.
const STUCK_AFTER: Duration = Duration::from_secs(120);
/// LIMIT: damaged ranges that `/readyz` names; `/metrics` has more.
const RANGES_NAMED_MAX: usize = 20;

/// How far a broker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The data folder is read.
    Recovering,
    /// Connections are accepted.
    Serving,
    /// A shutdown has begun.
    Draining,
}

/// What there is to look at once recovery is over.
#[derive(Clone)]
pub struct Served {
    /// What is durable.
    pub views: Arc<Views>,
    /// The data. Weak: a look at it must not keep the folder locked.
    pub store: Weak<dyn Store>,
    /// Bytes of unanswered publishes that may still come.
    pub in_flight: Arc<Semaphore>,
    /// All of them.
    pub in_flight_bytes_max: u64,
    /// What must stay free on the device.
    pub free_floor_bytes: u64,
    /// Rows of lag in a scrape.
    pub lag_series_max: usize,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Its name, for machines.
    pub name: &'static str,
    /// Whether traffic should go elsewhere because of it.
    pub is_fatal: bool,
    /// For people.
    pub text: String,
}

impl Reason {
    fn fatal(name: &'static str, text: impl Into<String>) -> Self {
        Self {
            name,
            is_fatal: true,
            text: text.into(),
        }
    }

    fn degraded(name: &'static str, text: impl Into<String>) -> Self {
        Self {
            is_fatal: false,
            ..Self::fatal(name, text)
        }
    }
}

/// The state of a broker, as its admin port sees it.
pub struct Status {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    phase: AtomicU8,
    served: OnceLock<Served>,
}

impl Status {
    /// The status of a broker that is about to recover.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            phase: AtomicU8::new(Phase::Recovering as u8),
            served: OnceLock::new(),
        }
    }

    /// Recovery is over and connections are accepted.
    pub fn serve(&self, served: Served) {
        // Set once: a broker recovers once.
        let _first = self.served.set(served);
        self.phase.store(Phase::Serving as u8, Ordering::Release);
    }

    /// A shutdown has begun.
    pub fn drain(&self) {
        self.phase.store(Phase::Draining as u8, Ordering::Release);
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Recovering,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    pub(super) fn served(&self) -> Option<&Served> {
        self.served.get()
    }

    /// Loops that hang, at a time of the monotonic clock.
    pub(super) fn stuck(&self, now_ms: u64) -> Vec<Reason> {
        let check = |name, what: &str, beat: &Beat| {
            let busy = beat.busy_for(now_ms);
            let text = || format!("{what} has been in one turn for {} s", busy.as_secs());
            (busy >= STUCK_AFTER).then(|| Reason::fatal(name, text()))
        };
        let metrics = &self.metrics;
        let writer = &metrics.writer;
        let turn = check("writer_stuck", "the writer", &writer.turns);
        let writer = turn.or_else(|| check("writer_stuck", "the writer", &writer.finishes));
        let housekeeping = &metrics.process.housekeeping;
        let housekeeping = check("housekeeping_stuck", "housekeeping", housekeeping);
        writer.into_iter().chain(housekeeping).collect()
    }

    /// `stuck` now.
    pub fn hangs(&self) -> Vec<Reason> {
        self.stuck(clock::monotonic_ms())
    }

    /// Everything that is not as it should be; fatal reasons first.
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        match self.phase() {
            Phase::Recovering => reasons.push(self.recovering()),
            Phase::Draining => {
                reasons.push(Reason::fatal("draining", "the broker is shutting down"));
            }
            Phase::Serving => {}
        }
        let Some(served) = &self.served.get() else {
            return reasons;
        };
        match served.views.write_state() {
            WriteState::Accepting => {}
            WriteState::Full => reasons.push(Reason::degraded(
                "storage_full",
                "publishes are refused until space returns, reading goes on",
            )),
            WriteState::Stopped => reasons.push(Reason::fatal(
                "journal_failed",
                "a write or sync failed, nothing is accepted until a restart",
            )),
        }
        if self.metrics.process.index_by_footers.value() > 0 {
            let text = "sled cannot be used, the segments' footers are the index until a restart";
            reasons.push(Reason::degraded("index_by_footers", text));
        }
        reasons.extend(served.damaged());
        reasons
    }

    fn recovering(&self) -> Reason {
        let process = &self.metrics.process;
        let (read, all) = (
            process.recovery_segments_read.value(),
            process.recovery_segments.value(),
        );
        let text = match (process.recovery_us.value(), all) {
            (0, 0) => "the data folder is being opened".to_owned(),
            (0, _) => format!("{read} of {all} segments read"),
            (_, _) => "the journal is read, the broker is about to serve".to_owned(),
        };
        Reason::fatal("recovering", text)
    }

    /// The same for programs.
    pub fn to_json(&self, reasons: &[Reason]) -> Value {
        let process = &self.metrics.process;
        let of = |reason: &Reason| json!({"name": reason.name, "is_fatal": reason.is_fatal, "text": reason.text});
        json!({
            "status": summary(reasons),
            "phase": match self.phase() {
                Phase::Recovering => "recovering",
                Phase::Serving => "serving",
                Phase::Draining => "draining",
            },
            "reasons": reasons.iter().map(of).collect::<Vec<_>>(),
            "recovery": {
                "segments_read": process.recovery_segments_read.value(),
                "segments": process.recovery_segments.value(),
            },
            "version": env!("CARGO_PKG_VERSION"),
        })
    }
}

/// One word for all of it.
pub(super) fn summary(reasons: &[Reason]) -> &'static str {
    if reasons.iter().any(|reason| reason.is_fatal) {
        "not ready"
    } else if reasons.is_empty() {
        "ready"
    } else {
        "degraded"
    }
}

impl Served {
    pub(super) fn damage(&self) -> Vec<Damage> {
        let store = self.store.upgrade();
        store.map_or_else(Vec::new, |store| store.damage())
    }

    fn damaged(&self) -> Vec<Reason> {
        let damage = self.damage();
        let catalog = self.views.catalog();
        let named = damage.iter().take(RANGES_NAMED_MAX).map(|damage| {
            let (id, range) = (damage.partition, &damage.range);
            let topic = topic_name(&catalog, id.topic);
            let (from, to) = (range.start, range.end);
            let text = format!("{topic}/{} offsets {from} to {to}", id.partition);
            Reason::degraded("damaged", text)
        });
        let mut reasons: Vec<_> = named.collect();
        if damage.len() > RANGES_NAMED_MAX {
            let text = format!("and {} ranges more", damage.len() - RANGES_NAMED_MAX);
            reasons.push(Reason::degraded("damaged", text));
        }
        reasons
    }
}

/// The name of a topic, or its number when it is gone.
pub(super) fn topic_name(catalog: &Catalog, id: TopicId) -> String {
    let topic = catalog.by_id(id);
    topic.map_or_else(|| id.to_string(), |topic| topic.name.clone())
}

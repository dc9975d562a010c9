//! The limits that rows are measured against, each taken right beside its row.

use crate::limits::loopback::{self, RoundTrips};
use crate::limits::samples::Summary;
use crate::limits::write::{self, Written};
use crate::limits::{Fallible, echo};
use crate::load::Stage;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What bulk cannot be faster than.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bulk {
    /// MB a second of one stream over loopback.
    pub(crate) stream: f64,
    /// MB a second of writes with a sync each, of 1 MiB, into the best kind of file.
    pub(crate) write: f64,
}

impl Bulk {
    pub(crate) const IS: &str = "the lower of one loopback stream and 1 MiB write + fdatasync";

    pub(crate) fn measure(stage: &Stage) -> Fallible<Self> {
        let measured = write::measure_all(&stage.folder, MIB, stage.lap())?;
        let widest = write::widest(&measured).ok_or("no write was measured")?;
        Ok(Self {
            stream: stream(stage)?,
            write: widest.summary.mb_per_s,
        })
    }

    pub(crate) fn megabytes(self) -> f64 {
        self.stream.min(self.write)
    }
}

/// MB a second of one stream over loopback.
pub(crate) fn stream(stage: &Stage) -> Fallible<f64> {
    loopback::stream(256 * KIB, stage.lap())
}

/// What a publish with an ack cannot be quicker than.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ack {
    /// The quickest way to write and sync.
    pub(crate) write: Written,
    pub(crate) trips: RoundTrips,
}

impl Ack {
    /// With `bytes` written for it.
    pub(crate) fn measure(stage: &Stage, bytes: usize) -> Fallible<Self> {
        let measured = write::measure_all(&stage.folder, bytes, stage.lap())?;
        let best = write::quickest(&measured).ok_or("no write was measured")?;
        let long = stage.length / 3;
        Ok(Self {
            // Again and for longer: one in a hundred takes many to find.
            write: write::measure(&stage.folder, best.shape, long)?,
            trips: loopback::round_trips(long)?,
        })
    }

    /// Both by the shortest program that does both.
    pub(crate) fn echo(self, stage: &Stage) -> Fallible<Summary> {
        echo::measure(&stage.folder, self.write.shape, stage.length / 3)
    }

    /// The shortest program that delivers what was written and synced, at a thousand records a second.
    pub(crate) fn delivery(self, stage: &Stage) -> Fallible<Summary> {
        echo::deliver(&stage.folder, self.write.shape, stage.length / 3)
    }

    pub(crate) fn p50_us(self) -> f64 {
        self.write.summary.p50_us + self.trips.blocking.p50_us
    }

    pub(crate) fn p99_us(self) -> f64 {
        self.write.summary.p99_us + self.trips.blocking.p99_us
    }
}

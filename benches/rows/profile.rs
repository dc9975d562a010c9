//! Where the time of a load goes: cores or syncs.

use std::fmt;
use std::thread::available_parallelism;

use falcon::clock::Instant;

use crate::broker::Broker;
use crate::limits::Fallible;
use crate::process::{Spare, children_cpu_seconds, cpu_seconds, threads};

/// Seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Profile {
    wall: f64,
    client: f64,
    broker: f64,
    writer: f64,
    sync: f64,
    idle: f64,
    stolen: f64,
}

impl Profile {
    /// Of what `load` does to the broker with one child of this process.
    pub(crate) fn of<T>(
        broker: &Broker,
        load: impl FnOnce() -> Fallible<T>,
    ) -> Fallible<(T, Self)> {
        let begun = Instant::now();
        let before = Self::now(broker)?;
        let ran = load()?;
        let after = Self::now(broker)?;
        let mut profile = after.plus(&before, -1.0);
        profile.wall = begun.elapsed().as_secs_f64();
        Ok((ran, profile))
    }

    fn now(broker: &Broker) -> Fallible<Self> {
        let threads = threads(broker.pid())?;
        let spare = Spare::now()?;
        Ok(Self {
            wall: 0.0,
            client: children_cpu_seconds()?,
            broker: cpu_seconds(broker.pid())?,
            writer: threads.get("falcon-writer").copied().unwrap_or_default(),
            sync: broker.metric("falcon_sync_seconds_sum")?,
            idle: spare.idle,
            stolen: spare.stolen,
        })
    }

    /// Several, one after the other.
    pub(crate) fn sum(profiles: &[Self]) -> Self {
        let add = |sum: Self, next: &Self| sum.plus(next, 1.0);
        profiles.iter().fold(Self::default(), add)
    }

    fn plus(self, other: &Self, sign: f64) -> Self {
        Self {
            wall: sign.mul_add(other.wall, self.wall),
            client: sign.mul_add(other.client, self.client),
            broker: sign.mul_add(other.broker, self.broker),
            writer: sign.mul_add(other.writer, self.writer),
            sync: sign.mul_add(other.sync, self.sync),
            idle: sign.mul_add(other.idle, self.idle),
            stolen: sign.mul_add(other.stolen, self.stolen),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = available_parallelism().map_or(1, usize::from);
        #[expect(clippy::cast_precision_loss, reason = "there are few cores")]
        let core_seconds = self.wall * cores as f64;
        let of_cores = |seconds: f64| 100.0 * seconds / core_seconds;
        let named = self.client + self.broker + self.idle + self.stolen;
        let of_wall = |seconds: f64| 100.0 * seconds / self.wall;
        write!(
            to,
            "of {cores} cores: client {:.0} %, broker {:.0} %, kernel threads and others {:.0} %, idle or \
             waiting for the device {:.0} %, stolen by the host {:.0} %; \
             of the time: writer's thread on a core {:.0} %, in sync {:.0} %",
            of_cores(self.client),
            of_cores(self.broker),
            of_cores(core_seconds - named),
            of_cores(self.idle),
            of_cores(self.stolen),
            of_wall(self.writer),
            of_wall(self.sync),
        )
    }
}

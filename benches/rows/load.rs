//! `falcon bench` as a process of its own, as a user would run it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use falcon::clock::Instant;
use serde::Deserialize;

use crate::broker::{Broker, program};
use crate::limits::Fallible;

/// How everything is measured.
pub(crate) struct Stage {
    pub(crate) program: PathBuf,
    /// On the device that is measured.
    pub(crate) folder: PathBuf,
    pub(crate) length: Duration,
    /// What is measured so often; the median counts.
    pub(crate) rounds: usize,
    /// Of the sizes of logs.
    pub(crate) scale: f64,
}

impl Stage {
    /// How long each shape of a limit is measured.
    pub(crate) fn lap(&self) -> Duration {
        let longest = Duration::from_millis(500);
        (self.length / 10).min(longest)
    }

    /// So many bytes, scaled.
    pub(crate) fn bytes(&self, bytes: f64) -> f64 {
        bytes * self.scale
    }

    /// A broker on a folder that was empty.
    pub(crate) fn fresh(&self) -> Fallible<Broker> {
        let data = self.folder.join("data");
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        Broker::start(&self.program, &data)
    }

    fn command(&self, broker: &Broker, arguments: &str) -> Command {
        let mut command = program(&self.program);
        command
            .args(arguments.split_whitespace())
            .env("FALCON_SERVER", format!("falcon://{}", broker.address));
        command
    }

    /// `falcon ARGUMENTS`, until it ends.
    pub(crate) fn falcon(&self, broker: &Broker, arguments: &str) -> Fallible<Vec<u8>> {
        let output = self.command(broker, arguments).output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(format!("falcon {arguments}: {}", why.trim()).into())
    }

    /// `falcon bench LOAD`, whatever it says.
    pub(crate) fn bench(&self, broker: &Broker, load: &str) -> Fallible<Ran> {
        let output = self.falcon(broker, &format!("bench {load} --json"))?;
        Ok(serde_json::from_slice(&output)?)
    }

    /// As [`bench`](Self::bench), for the time that the stage says, after so much warm-up.
    pub(crate) fn timed(&self, broker: &Broker, load: &str, warm_up: Duration) -> Fallible<Ran> {
        let (length, warm_up) = (self.length.as_millis(), warm_up.as_millis());
        let phases = format!("--duration {length}ms --warm-up {warm_up}ms");
        self.bench(broker, &format!("{load} {phases}"))
    }

    /// As [`timed`](Self::timed), after a second or less of warm-up.
    pub(crate) fn warm(&self, broker: &Broker, load: &str) -> Fallible<Ran> {
        self.timed(broker, load, (self.length / 3).min(Duration::from_secs(1)))
    }

    /// As [`timed`](Self::timed), where everything that happens counts.
    pub(crate) fn cold(&self, broker: &Broker, load: &str) -> Fallible<Ran> {
        self.timed(broker, load, Duration::ZERO)
    }

    /// A client that publishes to a topic until it is dropped.
    pub(crate) fn publishing(
        &self,
        broker: &Broker,
        topic: &str,
        size: u64,
    ) -> Fallible<Publishing> {
        let load =
            format!("bench publish --topic {topic} --size {size} --duration 1d --warm-up 0s");
        let mut command = self.command(broker, &load);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Publishing(child))
    }

    /// Publishes until so many bytes more are durable.
    pub(crate) fn fill(&self, broker: &Broker, topic: Topic<'_>, bytes: f64) -> Fallible<()> {
        let acked = |broker: &Broker| broker.metric("falcon_publish_bytes_acked_total");
        self.falcon(broker, &format!("topic create {}", topic.name))?;
        let until = acked(broker)? + bytes;
        let mut publishing = self.publishing(broker, topic.name, topic.record_bytes)?;
        let patience = Instant::now().after(Duration::from_secs(600));
        while acked(broker)? < until {
            publishing.check()?;
            if Instant::now() > patience {
                return Err("filling takes longer than ten minutes".into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Bytes that may still be written to the device.
    pub(crate) fn free_bytes(&self) -> Fallible<f64> {
        free_bytes(&self.folder)
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are enough")]
fn free_bytes(folder: &Path) -> Fallible<f64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail as f64 * stat.f_frsize as f64)
}

/// A topic to fill.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Topic<'a> {
    pub(crate) name: &'a str,
    pub(crate) record_bytes: u64,
}

/// A client at work.
pub(crate) struct Publishing(Child);

impl Publishing {
    /// It should not have ended.
    pub(crate) fn check(&mut self) -> Fallible<()> {
        match self.0.try_wait()? {
            Some(status) => Err(format!("the publisher ended with {status}").into()),
            None => Ok(()),
        }
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        // It may have ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What a benchmark reports.
#[derive(Debug, Deserialize)]
pub(crate) struct Ran {
    pub(crate) records: f64,
    pub(crate) value_bytes: f64,
    pub(crate) records_per_second: f64,
    pub(crate) megabytes_per_second: f64,
    pub(crate) ack: Option<Times>,
    pub(crate) delivery: Option<Times>,
}

/// Of its histograms.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Times {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Ran {
    pub(crate) fn ack(&self) -> Fallible<Times> {
        self.ack.ok_or_else(|| "no ack was measured".into())
    }

    pub(crate) fn delivery(&self) -> Fallible<Times> {
        self.delivery
            .ok_or_else(|| "no delivery was measured".into())
    }
}

//! SIGKILL under load, at random moments and when the journal rolls.
//!
//! A killed process leaves its writes to the kernel, which loses none of them; so this tests order
//! and recovery, not syncing: nothing acknowledged too early, whole groups nobody was told about,
//! brokers killed while they recover, clients that find their way back. The control removes the end
//! of the journal before each start: what a broker would do that acknowledges what it has not written.
#![expect(
    clippy::disallowed_methods,
    reason = "the control damages files behind the broker's back"
)]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::error::CrashError;
use crate::process::Broker;
use crate::round::{self, Fault, Phase, RoundOptions, RoundReport};
use crate::watch::Watch;

/// How much of the journal's end the control removes.
const CONTROL_BYTES: u64 = 64 << 10;

/// How long after a roll a kill that is tied to it comes at the latest.
const AFTER_ROLL_US_MAX: u64 = 5_000;

/// Runs a round of kills; as a control, acknowledged records are made to vanish.
pub fn run(options: &RoundOptions, is_control: bool) -> Result<RoundReport, CrashError> {
    let mut fault = Kill {
        data_dir: options.folder.join("data"),
        is_control,
        random: Rng::with_seed(options.seed),
        rolls: None,
    };
    round::run(options, &mut fault)
}

struct Kill {
    data_dir: PathBuf,
    is_control: bool,
    random: Rng,
    /// What the next strike waits for.
    rolls: Option<Watch>,
}

impl Fault for Kill {
    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    fn settle(&mut self) -> Result<(), CrashError> {
        Ok(())
    }

    /// One kill in three comes when the journal goes on in a new file, or just after.
    fn arm(&mut self, _: Phase) -> Result<(), CrashError> {
        let is_tied = self.random.u8(0..3) == 0;
        let journal = self.data_dir.join("journal");
        self.rolls = if is_tied { Watch::on(&journal)? } else { None };
        Ok(())
    }

    fn wait(&mut self, longest: Duration) -> Result<bool, CrashError> {
        let Some(rolls) = self.rolls.take() else {
            thread::sleep(longest);
            return Ok(false);
        };
        let has_rolled = rolls.wait(longest)?;
        if has_rolled {
            let later_us = self.random.u64(0..AFTER_ROLL_US_MAX);
            thread::sleep(Duration::from_micros(later_us));
        }
        Ok(has_rolled)
    }

    fn strike(&mut self, broker: Option<Broker>) -> Result<(), CrashError> {
        if let Some(broker) = broker {
            broker.kill();
        }
        Ok(())
    }

    fn revive(&mut self) -> Result<(), CrashError> {
        if self.is_control {
            forget_end(&self.data_dir.join("journal"))?;
        }
        Ok(())
    }
}

/// Zeros the last written bytes of the newest segment.
fn forget_end(journal: &Path) -> Result<(), CrashError> {
    let Ok(entries) = std::fs::read_dir(journal) else {
        return Ok(());
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_segment = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".seg") && !name.starts_with("spare")
    };
    let Some(newest) = paths.filter(is_segment).max() else {
        return Ok(());
    };
    let bytes = std::fs::read(&newest).map_err(CrashError::io("read", &newest))?;
    let written = bytes.iter().rposition(|byte| *byte != 0);
    let end = written.map_or(0, |last| last as u64 + 1);
    let from = end.saturating_sub(CONTROL_BYTES).max(4096).min(end);
    let file: File = OpenOptions::new()
        .write(true)
        .open(&newest)
        .map_err(CrashError::io("open", &newest))?;
    let zeros = vec![0; usize::try_from(end - from).unwrap_or_default()];
    file.write_all_at(&zeros, from)
        .map_err(CrashError::io("write", &newest))
}

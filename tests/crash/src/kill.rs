//! SIGKILL at random moments under load.
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

use crate::error::CrashError;
use crate::process::Broker;
use crate::round::{self, Fault, RoundOptions, RoundReport};

/// How much of the journal's end the control removes.
const CONTROL_BYTES: u64 = 64 << 10;

/// Runs a round of kills; as a control, acknowledged records are made to vanish.
pub fn run(options: &RoundOptions, is_control: bool) -> Result<RoundReport, CrashError> {
    let mut fault = Kill {
        data_dir: options.folder.join("data"),
        is_control,
    };
    round::run(options, &mut fault)
}

struct Kill {
    data_dir: PathBuf,
    is_control: bool,
}

impl Fault for Kill {
    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    fn settle(&mut self) -> Result<(), CrashError> {
        Ok(())
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

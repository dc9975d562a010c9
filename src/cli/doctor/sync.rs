//! Whether a sync reaches the device: it takes its time there.

use std::path::Path;
use std::time::Duration;

use falcon::clock::Instant;
use falcon::io::{Disk, IoError, RealDisk};

use super::{Check, Verdict};

const SAMPLES: usize = 200;
const BLOCK: usize = 4096;
/// No device makes a block durable this quickly, but for a few with memory behind a battery.
const SUSPICIOUS: Duration = Duration::from_micros(20);
/// Each publish under light load waits for one sync.
const SLOW: Duration = Duration::from_millis(50);

const NAME: &str = "sync";

pub(super) fn check(folder: &Path) -> Check {
    match measure(folder) {
        Ok(times) => judge(times),
        Err(error) => {
            let what = format!("{error}: {}", error.source);
            let remedy = "the broker must be able to write there: check owner, space and mount";
            Check::new(NAME, Verdict::Fail, what, remedy)
        }
    }
}

fn judge(mut times: Vec<Duration>) -> Check {
    times.sort_unstable();
    let at = |percent: usize| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).copied().unwrap_or_default()
    };
    let (median, p99) = (at(50), at(99));
    let micros = |time: Duration| time.as_micros();
    let what = format!(
        "write and sync of 4 KiB take {} us, one in a hundred {} us or more",
        micros(median),
        micros(p99)
    );
    if median < SUSPICIOUS {
        let what = format!("{what}: faster than devices are, syncs may not be honoured");
        let remedy = "find out what is in between (memory, cache mode of the virtual disk), or \
                      power loss may cost what was acknowledged";
        return Check::new(NAME, Verdict::Warn, what, remedy);
    }
    if median > SLOW {
        let remedy = "expect publishes to wait that long, or use a faster device";
        return Check::new(NAME, Verdict::Warn, what, remedy);
    }
    Check::ok(NAME, what)
}

/// Overwrites blocks that were written before, as the journal does.
fn measure(folder: &Path) -> Result<Vec<Duration>, IoError> {
    let name = format!("falcon-doctor-{:08x}.tmp", fastrand::u32(..));
    let path = folder.join(name);
    let file = RealDisk.create(&path)?;
    // ORDER: without a name from the start, so that nothing is left however this ends.
    RealDisk.remove(&path)?;
    file.write_at(0, &vec![0; SAMPLES * BLOCK])?;
    file.sync_data()?;
    let block: Vec<u8> = (0..BLOCK).map(|_| fastrand::u8(..)).collect();
    let mut times = Vec::with_capacity(SAMPLES);
    for sample in 0..SAMPLES {
        let started = Instant::now();
        file.write_at((sample * BLOCK) as u64, &block)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_that_takes_no_time_is_suspicious() {
        let of = |micros| judge(vec![Duration::from_micros(micros); SAMPLES]).verdict;
        assert_eq!(of(3), Verdict::Warn);
        assert_eq!(of(120), Verdict::Ok);
        assert_eq!(of(80_000), Verdict::Warn);
        let mut mixed = vec![Duration::from_micros(100); SAMPLES - 4];
        mixed.extend([Duration::from_micros(9_000); 4]);
        let check = judge(mixed);
        assert!(check.what.contains("100 us"), "{}", check.what);
        assert!(check.what.contains("9000 us"), "{}", check.what);
    }
}

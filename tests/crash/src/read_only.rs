//! A file system that takes no more writes, in the middle of publishing.
//!
//! ext4 that meets an error in itself goes read-only (`errors=remount-ro`); the kernel has a switch that
//! makes it believe so. What it had not written by then is gone when it is mounted again: so what a
//! broker acknowledged and had not synced is found missing. Owns the order of it.

use std::path::Path;
use std::thread;
use std::time::Duration;

use falcon_client::{Client, ErrorCode, Partition};
use tokio::runtime::Runtime;

use crate::checker::check;
use crate::error::CrashError;
use crate::full::ledger::{Ledger, Published};
use crate::full::volume::Volume;
use crate::full::{bad_lines, connect, program, runtime, start};
use crate::history::now_ns;
use crate::load::{Load, LoadOptions};
use crate::process::{Broker, Program};
use crate::trial::{Findings, TrialOptions};

const DEVICE_BYTES: u64 = 512 << 20;
const SETTINGS: [(&str, &str); 4] = [
    ("FALCON_STORAGE_SEGMENT_BYTES", "1MiB"),
    ("FALCON_STORAGE_FREE_FLOOR_BYTES", "8MiB"),
    ("FALCON_LIMITS_BATCH_BYTES_MAX", "128KiB"),
    ("FALCON_SHUTDOWN_GRACE_MS", "2s"),
];
/// What a log may say of it.
const EXPECTED: [&str; 5] = [
    "the journal cannot be written",
    "the journal failed",
    "the journal was not closed cleanly",
    "the index cannot be used",
    "the index cannot be written",
];
/// Longest until the broker has noticed.
const DEADLINE: Duration = Duration::from_secs(30);

/// The trial.
pub(crate) fn read_only(options: &TrialOptions) -> Result<Findings, CrashError> {
    let cycles = if options.is_long { 30 } else { 2 };
    let mut volume = Volume::new(&options.folder, DEVICE_BYTES)?;
    let runtime = runtime()?;
    let program = program(options, &volume, &SETTINGS)?;
    let mut trial = ReadOnly {
        runtime: &runtime,
        program: &program,
        findings: Findings::default(),
    };
    for name in ["acks_after_failure", "lost", "duplicates", "cycles"] {
        trial.findings.figure(name, 0);
    }
    trial.run(&mut volume, cycles, options)?;
    let findings = trial.findings;
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(findings)
}

struct ReadOnly<'a> {
    runtime: &'a Runtime,
    program: &'a Program,
    findings: Findings,
}

impl ReadOnly<'_> {
    fn run(
        &mut self,
        volume: &mut Volume,
        cycles: u32,
        options: &TrialOptions,
    ) -> Result<(), CrashError> {
        let mut random = fastrand::Rng::with_seed(options.seed);
        let mut broker = start(self.program)?;
        let handle = self.runtime.handle().clone();
        let what = LoadOptions {
            address: self.program.address(),
            folder: options.folder.clone(),
            partitions: 4,
            retention_bytes: None,
            topics: None,
        };
        let mut load = Load::new(handle, what)?;
        let mut client = self.runtime.block_on(connect(self.program))?;
        let created = Ledger::create(&client, "ledger", (2, 600));
        let mut ledger = self.runtime.block_on(created)?;
        load.start_lasting()?;
        for cycle in 0..cycles {
            let before = ledger.acked();
            for _ in 0..random.u32(1..40) {
                self.runtime.block_on(ledger.publish());
            }
            self.findings.expect(ledger.acked() > before, || {
                "nothing is acknowledged before the device fails".into()
            });
            switch(volume.path())?;
            let is_noticed = self.until_stopped(&mut ledger);
            self.while_stopped(&client, &mut ledger);
            if !is_noticed {
                break;
            }
            self.end(broker, cycle);
            self.refuses_to_start()?;
            volume.remount()?;
            broker = start(self.program)?;
            client = self.runtime.block_on(connect(self.program))?;
            let reconnected = self.runtime.block_on(ledger.reconnect(&client));
            let said = reconnected.err().map(|error| error.to_string());
            self.findings
                .expect(said.is_none(), || format!("no publisher: {said:?}"));
            self.compare(&ledger);
            self.add("cycles", 1);
            if cycle + 1 == cycles {
                return self.judge(broker, &load, &ledger);
            }
        }
        Ok(())
    }

    /// Publishes until the broker says that it cannot; answers whether it did.
    fn until_stopped(&mut self, ledger: &mut Ledger) -> bool {
        let begun = now_ns();
        loop {
            match self.runtime.block_on(ledger.publish()) {
                Published::Acked | Published::Unanswered => {}
                Published::Full => {
                    let said = "a read-only device is said to be full".to_owned();
                    self.findings.broken.push(said);
                    return false;
                }
                Published::Otherwise(said) => return self.is_clear(&said),
            }
            if Duration::from_nanos(now_ns().saturating_sub(begun)) > DEADLINE {
                let said = "the broker publishes on, onto a read-only device".to_owned();
                self.findings.broken.push(said);
                return false;
            }
        }
    }

    fn is_clear(&mut self, said: &str) -> bool {
        let is_clear = said.contains("writes_stopped") || said.contains("outcome_unknown");
        self.findings
            .expect(is_clear, || format!("a publish ended with: {said}"));
        is_clear
    }

    /// Nothing is acknowledged any more, and everything can be read.
    fn while_stopped(&mut self, client: &Client, ledger: &mut Ledger) {
        for _ in 0..3 {
            match self.runtime.block_on(ledger.publish()) {
                Published::Acked | Published::Full => {
                    self.add("acks_after_failure", 1);
                    let said = "a publish was acknowledged after the failure".to_owned();
                    self.findings.broken.push(said);
                }
                Published::Unanswered => {}
                Published::Otherwise(said) => {
                    self.add("publishes_refused", 1);
                    self.is_clear(&said);
                }
            }
        }
        let offsets = client.offsets("read-only");
        let position = falcon_client::Offset::ZERO;
        let committed = offsets.commit(&ledger.topic, Partition(0), position);
        let code = self.runtime.block_on(committed).map_err(|e| e.code());
        let is_clear = code == Err(Some(ErrorCode::WritesStopped));
        self.findings
            .expect(is_clear, || format!("an offset commit ended with {code:?}"));
        let fetched = self.runtime.block_on(offsets.fetch(&ledger.topic));
        self.findings.expect(fetched.is_ok(), || {
            format!("committed offsets cannot be read: {fetched:?}")
        });
        let read = self.compare(ledger);
        self.add("records_read_while_read_only", read);
    }

    /// Orderly or not, in turns.
    fn end(&mut self, broker: Broker, cycle: u32) {
        if cycle.is_multiple_of(2) {
            self.findings.expect(broker.stop(), || {
                "the broker did not stop in order on a read-only device".into()
            });
        } else {
            broker.kill();
        }
    }

    /// A start on a read-only device is refused in words.
    fn refuses_to_start(&mut self) -> Result<(), CrashError> {
        let before = self.program.read_log().len();
        let broker = self.program.start()?;
        let is_ready = broker.wait_ready().is_some();
        drop(broker);
        let log = self.program.read_log();
        let said = log.get(before..).unwrap_or_default().to_owned();
        let is_named = said.to_lowercase().contains("read-only");
        self.findings.expect(!is_ready && is_named, || {
            format!("a start on a read-only device: ready {is_ready}, it said {said}")
        });
        self.add("starts_refused", 1);
        Ok(())
    }

    fn judge(&mut self, broker: Broker, load: &Load, ledger: &Ledger) -> Result<(), CrashError> {
        // Let clients that last find the broker again.
        thread::sleep(Duration::from_millis(300));
        load.finish();
        load.read_all()?;
        let verdict = check(&load.files()[..])?;
        self.add("acked", verdict.counts.acked + ledger.acked());
        self.add("records_compared", verdict.counts.stored);
        self.findings
            .expect(verdict.is_clean(), || format!("{verdict:?}"));
        self.findings.broken.extend(load.complaints());
        self.findings
            .expect(broker.stop(), || "the last broker did not stop".into());
        let bad = bad_lines(&self.program.read_log(), &EXPECTED);
        self.findings.broken.extend(bad);
        Ok(())
    }

    fn compare(&mut self, ledger: &Ledger) -> u64 {
        let compared = self.runtime.block_on(ledger.compare());
        self.add("lost", compared.lost);
        self.add("duplicates", compared.duplicates);
        self.findings.expect(compared.lost == 0, || {
            format!("{} acknowledged records are lost", compared.lost)
        });
        self.findings.broken.extend(compared.wrong);
        compared.read
    }

    fn add(&mut self, name: &str, more: u64) {
        *self.findings.figures.entry(name.to_owned()).or_default() += more;
    }
}

/// Makes the file system mounted at `at` believe that it is broken.
fn switch(at: &Path) -> Result<(), CrashError> {
    let mounts = Path::new("/proc/mounts");
    let list = std::fs::read_to_string(mounts).map_err(CrashError::io("read", mounts))?;
    let wanted = at.to_string_lossy();
    let device = list.lines().find_map(|line| {
        let mut words = line.split(' ');
        let device = words.next()?.strip_prefix("/dev/")?;
        (words.next()? == wanted).then_some(device)
    });
    let unavailable = |what: String| CrashError::Unavailable(what);
    let device = device.ok_or_else(|| unavailable(format!("{wanted} is not in /proc/mounts")))?;
    let path = format!("/sys/fs/ext4/{device}/trigger_fs_error");
    std::fs::write(&path, "a trial").map_err(|error| unavailable(format!("{path}: {error}")))
}

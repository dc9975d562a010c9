//! Power cuts: a file system on a device that forgets what was not flushed.
//!
//! A FUSE file of sectors with a volatile cache, a loop device on it, ext4 or xfs on that,
//! the broker's data folder in it. At some moment under load no write and no flush succeeds any
//! more, the broker is killed before it hears so, and of the sectors not flushed all, some or the
//! newest are lost. Then the file system replays its journal, and the broker its own. One fault in four
//! is a SIGKILL without a cut.
//!
//! The moment is a random one, or the device itself makes it: a number of flushes and writes after a
//! point in time, or after the journal got a new file (`trap`).
//!
//! The control runs the broker with its syncs switched off: the same rig must see records lost.
#![expect(
    clippy::disallowed_methods,
    reason = "the device's image is a file of the test, below the file system under test"
)]

mod device;
mod disk;
pub(crate) mod eio;
pub(crate) mod system;
mod trap;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::error::CrashError;
use crate::process::Broker;
use crate::round::{self, Fault, Phase, RoundOptions, RoundReport};
use crate::watch::Watch;
use device::{Device, Loss};
use disk::Disk;
use system::Mounted;
use trap::Trap;

/// Size of the device; xfs needs 300 MiB. The image is sparse.
const DEVICE_BYTES: u64 = 1 << 30;
/// Switches the broker's syncs off.
const NO_SYNC: &str = "FALCON_TEST_UNSAFE_NO_SYNC";

/// Longest wait for what a strike is tied to: a slow machine takes its time.
const EVENT_WAIT: Duration = Duration::from_millis(1_500);
/// The same while a broker starts or stops, which may be over without it.
const EVENT_WAIT_SHORT: Duration = Duration::from_millis(400);

/// Longest time that a broker lives on with a device that answers nothing.
const HANG_MS_MAX: u64 = 400;

/// What the next strike waits for.
#[derive(Debug, Default)]
enum Moment {
    /// Nothing: chance.
    #[default]
    Any,
    /// The trap that the device has, for so long.
    Device(Duration),
    /// The journal's next file, then this trap.
    Roll(Watch, Trap),
}

/// A file system to put the data on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FileSystem {
    /// The fourth extended file system.
    Ext4,
    /// XFS.
    Xfs,
}

impl FileSystem {
    /// As `mount` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// What the device below writes as a whole. With 512 bytes xfs is damaged itself: its replay skips
    /// a metadata block whose first sector is the newer one, whatever became of the rest. ext4 journals
    /// whole blocks.
    const fn sector_bytes(self) -> usize {
        match self {
            Self::Ext4 => 512,
            Self::Xfs => 4096,
        }
    }
}

/// Runs a round of power cuts; as a control, without syncs.
///
/// # Errors
/// [`CrashError::Unavailable`] when this machine cannot do it.
pub fn run(
    options: &RoundOptions,
    filesystem: FileSystem,
    is_control: bool,
) -> Result<RoundReport, CrashError> {
    system::check(filesystem.name())?;
    let mut options = options.clone();
    if is_control {
        options.environment.push((NO_SYNC.into(), "1".into()));
    }
    let mut power = Power::new(&options, filesystem, is_control)?;
    let report = round::run(&options, &mut power)?;
    Ok(RoundReport {
        power_cuts: power.cuts,
        ..report
    })
}

struct Power {
    // ORDER: dropped from the top: first the mount, then the disk below it.
    mounted: Option<Mounted>,
    disk: Disk,
    filesystem: FileSystem,
    is_control: bool,
    device_file: PathBuf,
    mount_point: PathBuf,
    random: Rng,
    /// Whether power is gone, not only the broker.
    is_cut: bool,
    /// Whether the next strike shall take power away.
    is_cut_planned: Option<bool>,
    /// Whether the last broker was killed without a cut, and may have left more than it synced.
    was_killed: bool,
    /// How long the device answers nothing before it is gone. What the broker says meanwhile must not
    /// need it, and clients have time to ask.
    hang: Duration,
    moment: Moment,
    cuts: u32,
}

impl Power {
    fn new(
        options: &RoundOptions,
        filesystem: FileSystem,
        is_control: bool,
    ) -> Result<Self, CrashError> {
        let image = options.folder.join("image");
        let disk_folder = create_folder(&options.folder, "disk")?;
        let mount_point = create_folder(&options.folder, "mounted")?;
        let medium = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&image)
            .map_err(CrashError::io("create", &image))?;
        medium
            .set_len(DEVICE_BYTES)
            .map_err(CrashError::io("resize", &image))?;
        system::make(filesystem.name(), &image)?;
        let device = Device::new(medium, DEVICE_BYTES, filesystem.sector_bytes());
        let disk = Disk::mount(device, &disk_folder)
            .map_err(|error| CrashError::Unavailable(format!("FUSE does not mount: {error}")))?;
        let mut power = Self {
            mounted: None,
            disk,
            filesystem,
            is_control,
            device_file: disk_folder.join(disk::FILE),
            mount_point,
            random: Rng::with_seed(options.seed),
            is_cut: false,
            is_cut_planned: None,
            was_killed: false,
            hang: Duration::ZERO,
            moment: Moment::Any,
            cuts: 0,
        };
        power.mount()?;
        Ok(power)
    }

    /// Power goes, and the broker with it.
    fn cut(&mut self, broker: Option<Broker>) {
        self.is_cut = true;
        self.cuts += 1;
        self.disk.cut();
        // ORDER: the signal before the release, so that the broker never runs on without a device.
        if let Some(broker) = &broker {
            broker.send_kill();
        }
        self.disk.release();
        if let Some(broker) = broker {
            broker.kill();
        }
    }

    fn mount(&mut self) -> Result<(), CrashError> {
        let name = self.filesystem.name();
        let mounted = Mounted::mount(name, &self.device_file, &self.mount_point)?;
        self.mounted = Some(mounted);
        Ok(())
    }
}

impl Power {
    /// Lets the file system's own tool mend it, and mounts it: the device refused writes of the file
    /// system too, and half of a superblock is nothing that a broker could prevent.
    fn repair(&mut self) -> Result<(), CrashError> {
        let device = self.device_file.to_string_lossy();
        // Exit code 1 is that it mended something. Whether that was enough shows now.
        system::run("fsck.ext4", &["-y", "-f", &device]).ok();
        self.mount()
    }
}

impl Fault for Power {
    fn data_dir(&self) -> PathBuf {
        self.mount_point.join("data")
    }

    fn settle(&mut self) -> Result<(), CrashError> {
        if self.is_control {
            // Else the whole folder would be gone, which proves less than lost records do.
            let at = self.mount_point.to_string_lossy();
            system::run("sync", &["--file-system", &at])?;
        }
        Ok(())
    }

    fn arm(&mut self, phase: Phase) -> Result<(), CrashError> {
        let was_killed = std::mem::take(&mut self.was_killed);
        let is_cut = was_killed || self.random.u8(0..3) > 0;
        self.is_cut_planned = Some(is_cut);
        let random = &mut self.random;
        let is_hanging = was_killed || random.bool();
        let hang_ms = if is_hanging {
            random.u64(0..HANG_MS_MAX)
        } else {
            0
        };
        self.hang = Duration::from_millis(hang_ms);
        self.moment = match (phase, random.u8(0..8)) {
            (_, 0) => Moment::Any,
            // Whatever the broker before it had not synced, this one may not rely on.
            (Phase::Working, 1..=6) if was_killed => {
                self.disk.arm(Trap::pick_at_once(random));
                Moment::Device(EVENT_WAIT)
            }
            (Phase::Working, 1..=4) => {
                let trap = Trap::pick_after_roll(is_cut, random);
                let watch = Watch::on(&self.data_dir().join("journal"))?;
                watch.map_or(Moment::Any, |watch| Moment::Roll(watch, trap))
            }
            _ => {
                self.disk.arm(Trap::pick(phase, is_cut, random));
                Moment::Device(match phase {
                    Phase::Working => EVENT_WAIT,
                    Phase::Starting | Phase::Stopping => EVENT_WAIT_SHORT,
                })
            }
        };
        Ok(())
    }

    fn wait(&mut self, longest: Duration) -> Result<bool, CrashError> {
        let has_come = match std::mem::take(&mut self.moment) {
            Moment::Any => {
                thread::sleep(longest);
                return Ok(false);
            }
            Moment::Device(longest) => self.disk.wait(longest),
            Moment::Roll(watch, trap) => {
                let has_rolled = watch.wait(EVENT_WAIT)?;
                if has_rolled {
                    self.disk.arm(trap);
                    self.disk.wait(EVENT_WAIT_SHORT);
                }
                has_rolled
            }
        };
        if has_come {
            thread::sleep(self.hang);
        }
        Ok(has_come)
    }

    fn strike(&mut self, broker: Option<Broker>) -> Result<(), CrashError> {
        self.disk.disarm();
        // Now and then only the broker dies: the next one finds what was written and never synced,
        // and may not build on it before it has.
        let planned = self.is_cut_planned.take();
        self.is_cut = planned.unwrap_or_else(|| self.random.u8(0..3) > 0);
        self.was_killed = !self.is_cut && broker.is_some();
        if !self.is_cut {
            broker.into_iter().for_each(Broker::kill);
            return Ok(());
        }
        self.cut(broker);
        Ok(())
    }

    fn revive(&mut self) -> Result<(), CrashError> {
        if !self.is_cut {
            return Ok(());
        }
        if let Some(mounted) = self.mounted.take() {
            mounted.unmount()?;
        }
        let loss = Loss::pick(&mut self.random);
        self.disk
            .revive(loss, &mut self.random)
            .map_err(CrashError::io("write", &self.device_file))?;
        self.mount()
    }
}

fn create_folder(parent: &Path, name: &str) -> Result<PathBuf, CrashError> {
    let folder = parent.join(name);
    std::fs::create_dir_all(&folder).map_err(CrashError::io("create", &folder))?;
    Ok(folder)
}

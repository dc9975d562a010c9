//! Power cuts: a file system on a device that forgets what was not flushed.
//!
//! A FUSE file of sectors with a volatile cache, a loop device on it, ext4 or xfs on that,
//! the broker's data folder in it. At a random moment under load no write and no flush succeeds any
//! more, the broker is killed before it hears so, and of the sectors not flushed all, some or the
//! newest are lost. Then the file system replays its journal, and the broker its own. One fault in five
//! is a SIGKILL without a cut.
//!
//! The control runs the broker with its syncs switched off: the same rig must see records lost.
#![expect(
    clippy::disallowed_methods,
    reason = "the device's image is a file of the test, below the file system under test"
)]

mod device;
mod disk;
pub(crate) mod system;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::error::CrashError;
use crate::process::Broker;
use crate::round::{self, Fault, RoundOptions, RoundReport};
use device::{Device, Loss};
use disk::Disk;
use system::Mounted;

/// Size of the device; xfs needs 300 MiB. The image is sparse.
const DEVICE_BYTES: u64 = 1 << 30;
/// Switches the broker's syncs off.
const NO_SYNC: &str = "FALCON_TEST_UNSAFE_NO_SYNC";

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
            cuts: 0,
        };
        power.mount()?;
        Ok(power)
    }

    fn mount(&mut self) -> Result<(), CrashError> {
        let name = self.filesystem.name();
        let mounted = Mounted::mount(name, &self.device_file, &self.mount_point)?;
        self.mounted = Some(mounted);
        Ok(())
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

    fn strike(&mut self, broker: Option<Broker>) -> Result<(), CrashError> {
        // Now and then only the broker dies: the next one finds what was written and never synced,
        // and may not build on it before it has.
        self.is_cut = self.random.u8(0..5) > 0;
        if !self.is_cut {
            broker.into_iter().for_each(Broker::kill);
            return Ok(());
        }
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

//! The device as a file of a FUSE file system, with a switch for its power.
//!
//! Promises: once [`Disk::cut`] returned, no write reaches the device and no flush succeeds. Requests
//! that come then are held until [`Disk::release`], so that a broker which waits for one can be killed
//! before it hears anything, as by a machine that stops; later ones fail at once.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fastrand::Rng;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use super::device::{Device, Loss};

/// Name of the one file.
pub(super) const FILE: &str = "device";
const FILE_INODE: INodeNo = INodeNo(2);

/// The mounted disk; unmounted when dropped.
pub(super) struct Disk {
    state: Arc<Mutex<State>>,
    _session: BackgroundSession,
}

#[derive(Debug)]
struct State {
    device: Device,
    power: Power,
    illness: Option<Illness>,
    /// Requests that an illness failed.
    failed: u64,
}

/// How a device with power fails: what it cannot do ends in `EIO`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Illness {
    /// Whether writes fail too, not flushes alone.
    pub(super) has_writes: bool,
    /// Whether it stays, or is over with the first request that failed.
    pub(super) is_sticky: bool,
}

#[derive(Debug)]
enum Power {
    On,
    /// Off, and nobody has been told.
    Cut(Vec<Held>),
    Off,
}

#[derive(Debug)]
enum Held {
    Write(ReplyWrite),
    Flush(ReplyEmpty),
}

impl Disk {
    pub(super) fn mount(device: Device, at: &Path) -> io::Result<Self> {
        let state = State {
            device,
            power: Power::On,
            illness: None,
            failed: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("falcon-crash".into())];
        let files = Files {
            state: Arc::clone(&state),
        };
        Ok(Self {
            _session: fuser::spawn_mount(files, at, &config)?,
            state,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// The device falls ill, or recovers.
    pub(super) fn set_illness(&self, illness: Option<Illness>) {
        self.state().illness = illness;
    }

    /// Requests that illnesses failed so far.
    pub(super) fn failed(&self) -> u64 {
        self.state().failed
    }

    /// Power goes.
    pub(super) fn cut(&self) {
        self.state().power = Power::Cut(Vec::new());
    }

    /// Lets those who wait know.
    pub(super) fn release(&self) {
        let before = std::mem::replace(&mut self.state().power, Power::Off);
        if let Power::Cut(held) = before {
            held.into_iter().for_each(Held::fail);
        }
    }

    /// Power comes back, with what is left; answers how many sectors had not been flushed.
    pub(super) fn revive(&self, loss: Loss, random: &mut Rng) -> io::Result<u64> {
        let mut state = self.state();
        let unflushed = state.device.lose(loss, random)?;
        state.power = Power::On;
        Ok(unflushed)
    }
}

impl Held {
    fn fail(self) {
        match self {
            Self::Write(reply) => reply.error(Errno::EIO),
            Self::Flush(reply) => reply.error(Errno::EIO),
        }
    }
}

impl State {
    /// Whether illness fails a request now.
    fn is_too_ill(&mut self, is_write: bool) -> bool {
        let Some(illness) = self
            .illness
            .filter(|illness| illness.has_writes || !is_write)
        else {
            return false;
        };
        if !illness.is_sticky {
            self.illness = None;
        }
        self.failed += 1;
        true
    }

    /// Holds or fails a request unless power is on.
    fn refuse(&mut self, held: Held) {
        match &mut self.power {
            Power::Cut(all) => all.push(held),
            Power::On | Power::Off => held.fail(),
        }
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Files {
    state: Arc<Mutex<State>>,
}

impl Files {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0),
            FILE_INODE => (
                FileType::RegularFile,
                locked(&self.state).device.len_bytes(),
            ),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 512,
            flags: 0,
        })
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let is_known = parent == INodeNo::ROOT && name == FILE;
        match self.attributes(FILE_INODE).filter(|_| is_known) {
            Some(found) => reply.entry(&Duration::ZERO, &found, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(found) => reply.attr(&Duration::ZERO, &found),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // No page cache in between: what the kernel has written, the device has seen.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        position: u64,
        bytes: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = locked(&self.state);
        let left = state.device.len_bytes().saturating_sub(position);
        let bytes = usize::try_from(left.min(bytes.into())).unwrap_or_default();
        let mut buffer = vec![0; bytes];
        match state.device.read(position, &mut buffer) {
            Ok(()) => reply.data(&buffer),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        position: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = locked(&self.state);
        if !matches!(state.power, Power::On) {
            return state.refuse(Held::Write(reply));
        }
        if state.is_too_ill(true) {
            return reply.error(Errno::EIO);
        }
        match state.device.write(position, bytes) {
            Ok(()) => reply.written(u32::try_from(bytes.len()).unwrap_or_default()),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    /// A close, which makes nothing durable.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    /// What a flush of the loop device becomes.
    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = locked(&self.state);
        if !matches!(state.power, Power::On) {
            return state.refuse(Held::Flush(reply));
        }
        if state.is_too_ill(false) {
            return reply.error(Errno::EIO);
        }
        match state.device.flush() {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(Errno::EIO),
        }
    }
}

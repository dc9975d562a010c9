//! The device as a file of a FUSE file system, with a switch for its power.
//!
//! Promises: once [`Disk::cut`] returned, or a trap has sprung that cuts, no write reaches the device and
//! no flush succeeds. Requests that come then are held until [`Disk::release`], so that a broker which waits for one can be killed
//! before it hears anything, as by a machine that stops; later ones fail at once.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fastrand::Rng;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use super::device::{Device, Loss};
use super::trap::{Sprung, Trap};

/// Name of the one file.
pub(super) const FILE: &str = "device";
const FILE_INODE: INodeNo = INodeNo(2);

/// The mounted disk; unmounted when dropped.
pub(super) struct Disk {
    shared: Arc<Shared>,
    _session: BackgroundSession,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told when a trap springs.
    sprung: Condvar,
}

#[derive(Debug)]
struct State {
    device: Device,
    power: Power,
    trap: Option<Trap>,
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
            trap: None,
            illness: None,
            failed: 0,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            sprung: Condvar::new(),
        });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("falcon-crash".into())];
        let files = Files {
            shared: Arc::clone(&shared),
        };
        Ok(Self {
            _session: fuser::spawn_mount(files, at, &config)?,
            shared,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Sets a trap.
    pub(super) fn arm(&self, trap: Trap) {
        self.state().trap = Some(trap);
    }

    /// Takes a trap away that has not sprung.
    pub(super) fn disarm(&self) {
        self.state().trap = None;
    }

    /// Waits until the trap has sprung; answers whether it did so in time.
    pub(super) fn wait(&self, longest: Duration) -> bool {
        let state = self.state();
        let sprung = &self.shared.sprung;
        let waited = sprung.wait_timeout_while(state, longest, |state| state.trap.is_some());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.trap.is_none()
    }

    /// The device falls ill, or recovers.
    pub(super) fn set_illness(&self, illness: Option<Illness>) {
        self.state().illness = illness;
    }

    /// Requests that illnesses failed so far.
    pub(super) fn failed(&self) -> u64 {
        self.state().failed
    }

    /// Power goes, unless it is gone.
    pub(super) fn cut(&self) {
        self.state().cut();
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
    fn cut(&mut self) {
        if matches!(self.power, Power::On) {
            self.power = Power::Cut(Vec::new());
        }
    }

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

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trap springs.
    fn spring(&self, state: &mut State) {
        if state.trap.take().is_some_and(|trap| trap.is_cut) {
            state.cut();
        }
        self.sprung.notify_all();
    }
}

struct Files {
    shared: Arc<Shared>,
}

impl Files {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0),
            FILE_INODE => (
                FileType::RegularFile,
                self.shared.state().device.len_bytes(),
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
        let state = self.shared.state();
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
        let mut state = self.shared.state();
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
        if state.trap.as_mut().is_some_and(Trap::at_write) {
            self.shared.spring(&mut state);
        }
    }

    /// A close, which makes nothing durable.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    /// What a flush of the loop device becomes.
    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.shared.state();
        if !matches!(state.power, Power::On) {
            return state.refuse(Held::Flush(reply));
        }
        if state.is_too_ill(false) {
            return reply.error(Errno::EIO);
        }
        let sprung = state.trap.as_mut().and_then(Trap::at_flush);
        if sprung == Some(Sprung::Before) {
            self.shared.spring(&mut state);
            if !matches!(state.power, Power::On) {
                return state.refuse(Held::Flush(reply));
            }
        }
        let flushed = state.device.flush();
        if let Some(Sprung::After { is_told }) = sprung {
            self.shared.spring(&mut state);
            if !is_told && !matches!(state.power, Power::On) {
                return state.refuse(Held::Flush(reply));
            }
        }
        match flushed {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(Errno::EIO),
        }
    }
}

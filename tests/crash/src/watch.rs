//! Waits for new names in a folder, as the kernel tells them.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::error::CrashError;
use crate::history::now_ns;

/// A folder under watch.
#[derive(Debug)]
pub(crate) struct Watch {
    events: OwnedFd,
}

impl Watch {
    /// Watches a folder for files that are renamed to a name in it other than a spare's; `None` when there
    /// is no such folder.
    pub(crate) fn on(folder: &Path) -> Result<Option<Self>, CrashError> {
        let failed = |errno: Errno| CrashError::io("watch", folder)(errno.into());
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(failed)?;
        match inotify::add_watch(&events, folder, WatchFlags::MOVED_TO) {
            Ok(_) => Ok(Some(Self { events })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Waits for a name; answers whether one came in time.
    pub(crate) fn wait(&self, longest: Duration) -> Result<bool, CrashError> {
        let failed = |errno: Errno| CrashError::io("watch", Path::new("a folder"))(errno.into());
        let deadline = now_ns() + u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        loop {
            let left = Duration::from_nanos(deadline.saturating_sub(now_ns()));
            let left = Timespec::try_from(left).unwrap_or_default();
            let mut wanted = [PollFd::new(&self.events, PollFlags::IN)];
            match poll(&mut wanted, Some(&left)) {
                Ok(0) => return Ok(false),
                Ok(_) if self.has_segment().map_err(failed)? => return Ok(true),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }

    /// Takes what was told so far; answers whether a segment was among it.
    fn has_segment(&self) -> Result<bool, Errno> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(self.events.as_fd(), &mut buffer);
        let mut is_found = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(std::ffi::CStr::to_bytes);
                    is_found |= name.is_some_and(|name| !name.starts_with(b"spare-"));
                }
                Err(Errno::AGAIN) => return Ok(is_found),
                Err(errno) => return Err(errno),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_gets_a_name_is_told_and_a_spare_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(Watch::on(&path("none")).unwrap().is_none());
        std::fs::write(path("spare-1.seg"), "").unwrap();
        let watch = Watch::on(folder.path()).unwrap().unwrap();
        let no_time = Duration::from_millis(1);
        std::fs::rename(path("spare-1.seg"), path("spare-2.seg")).unwrap();
        assert!(!watch.wait(no_time).unwrap());
        std::fs::rename(path("spare-2.seg"), path("2.seg")).unwrap();
        assert!(watch.wait(no_time).unwrap());
        assert!(!watch.wait(no_time).unwrap());
    }
}

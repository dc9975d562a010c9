//! Lines of a file or of standard input, as bytes, read ahead by a bounded amount.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use falcon_protocol::limits::BATCH_BYTES_MAX;
use thiserror::Error;
use tokio::sync::mpsc;

/// Bytes asked for in one read.
const READ_BYTES: usize = 256 * 1024;
/// Blocks read ahead of the publisher.
const BLOCKS_AHEAD: usize = 4;
/// LIMIT: no broker accepts a longer record, so a longer line need not be held in memory.
const LINE_BYTES_MAX: usize = BATCH_BYTES_MAX as usize;

/// Why lines could not be read.
#[derive(Debug, Error)]
pub(crate) enum LinesError {
    /// The file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line that no broker accepts.
    #[error("line {number} is longer than {max} bytes")]
    TooLong {
        /// Its number, from 1.
        number: u64,
        /// Bytes allowed.
        max: usize,
    },
}

/// Where lines come from.
pub(crate) struct Lines {
    blocks: mpsc::Receiver<Result<Vec<Bytes>, LinesError>>,
    /// Size of the input, where it is known.
    pub(crate) bytes_total: Option<u64>,
}

impl Lines {
    /// Starts to read `path`; `-` is standard input.
    pub(crate) fn open(path: &Path) -> Result<Self, LinesError> {
        let failed = |source| LinesError::Io {
            path: path.into(),
            source,
        };
        if path == Path::new("-") {
            return Ok(Self::start(path, io::stdin(), None));
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the user's own file, not the broker's data"
        )]
        let file = std::fs::File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let bytes_total = metadata.is_file().then_some(metadata.len());
        Ok(Self::start(path, file, bytes_total))
    }

    /// The lines of `from`, which errors call `path`.
    pub(crate) fn start(
        path: &Path,
        mut from: impl Read + Send + 'static,
        bytes_total: Option<u64>,
    ) -> Self {
        let (to, blocks) = mpsc::channel(BLOCKS_AHEAD);
        let path = path.to_path_buf();
        // A read of standard input cannot be cancelled, so it must not occupy a runtime worker.
        // The thread ends at the end of input, or when nobody wants more.
        drop(tokio::task::spawn_blocking(move || {
            let mut splitter = Splitter::default();
            loop {
                let block = splitter.read(&mut from).map_err(|error| match error {
                    SplitError::Io(source) => LinesError::Io {
                        path: path.clone(),
                        source,
                    },
                    SplitError::TooLong => LinesError::TooLong {
                        number: splitter.lines + 1,
                        max: LINE_BYTES_MAX,
                    },
                });
                let is_last = !matches!(&block, Ok(Some(_)));
                let Some(block) = block.transpose() else {
                    return;
                };
                if to.blocking_send(block).is_err() || is_last {
                    return;
                }
            }
        }));
        Self {
            blocks,
            bytes_total,
        }
    }

    /// The next lines, without their ends; `None` at the end of the input.
    ///
    /// CANCEL SAFETY: no line is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<Bytes>, LinesError>> {
        self.blocks.recv().await
    }
}

enum SplitError {
    Io(io::Error),
    TooLong,
}

/// Cuts what was read into lines that share its memory.
#[derive(Default)]
struct Splitter {
    rest: BytesMut,
    lines: u64,
    is_ended: bool,
}

impl Splitter {
    /// Lines of about one read; `None` when all were returned.
    fn read(&mut self, from: &mut impl Read) -> Result<Option<Vec<Bytes>>, SplitError> {
        while !self.is_ended {
            let scanned = self.rest.len();
            self.rest.resize(scanned + READ_BYTES, 0);
            let target = self.rest.get_mut(scanned..).unwrap_or_default();
            let read = match from.read(target) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(SplitError::Io(error)),
            };
            self.rest.truncate(scanned + read);
            self.is_ended = read == 0;
            let lines = self.split(scanned);
            if self.rest.len() > LINE_BYTES_MAX || lines.iter().any(|l| l.len() > LINE_BYTES_MAX) {
                return Err(SplitError::TooLong);
            }
            if !lines.is_empty() {
                self.lines += lines.len() as u64;
                return Ok(Some(lines));
            }
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        Ok(Some(vec![self.rest.split().freeze()]))
    }

    /// The whole lines of `rest`, in which the first `scanned` bytes have no line end.
    fn split(&mut self, scanned: usize) -> Vec<Bytes> {
        let fresh = self.rest.get(scanned..).unwrap_or_default();
        let Some(last) = fresh.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let whole = self.rest.split_to(scanned + last + 1).freeze();
        let mut lines = Vec::new();
        let mut start = 0;
        for (end, _) in whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            lines.push(whole.slice(start..end));
            start = end + 1;
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a few bytes at a time, as a terminal or a pipe may.
    struct Slow(Vec<u8>, usize);

    impl Read for Slow {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let read = self.1.min(self.0.len()).min(to.len());
            to[..read].copy_from_slice(&self.0[..read]);
            self.0.drain(..read);
            Ok(read)
        }
    }

    async fn lines_of(input: &[u8], step: usize) -> Vec<Bytes> {
        let mut lines = Lines::start(Path::new("-"), Slow(input.to_vec(), step), None);
        let mut all = Vec::new();
        while let Some(block) = lines.next().await {
            all.extend(block.unwrap());
        }
        all
    }

    #[tokio::test]
    async fn lines_are_any_bytes_and_the_last_needs_no_end() {
        for step in [1, 3, 1000] {
            assert_eq!(lines_of(b"", step).await.len(), 0);
            assert_eq!(lines_of(b"\n", step).await, [""]);
            assert_eq!(lines_of(b"a\n\nb", step).await, ["a", "", "b"]);
            assert_eq!(lines_of(b"a\r\nb\n", step).await, ["a\r", "b"]);
            assert_eq!(
                lines_of(b"\xff\xfe\n\0\n", step).await,
                [&b"\xff\xfe"[..], &b"\0"[..]]
            );
        }
    }

    #[tokio::test]
    async fn lines_may_be_longer_than_a_read() {
        let long = vec![b'x'; 3 * READ_BYTES + 1];
        let input = [&long[..], b"\n", &long[..]].concat();
        assert_eq!(lines_of(&input, usize::MAX).await, [&long[..], &long[..]]);
    }

    #[tokio::test]
    async fn a_line_that_no_broker_accepts_is_refused_with_its_number() {
        let input = io::Cursor::new(b"a\n".to_vec()).chain(io::repeat(b'x'));
        let mut lines = Lines::start(Path::new("-"), input, None);
        assert_eq!(lines.next().await.unwrap().unwrap(), ["a"]);
        let error = lines.next().await.unwrap().unwrap_err();
        assert!(error.to_string().starts_with("line 2 is longer"), "{error}");
        assert!(lines.next().await.is_none());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_named() {
        for path in ["/nowhere/x", "/"] {
            let error = Lines::open(Path::new(path)).err().unwrap().to_string();
            assert!(error.ends_with(path), "{error}");
        }
    }
}

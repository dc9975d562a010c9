//! The hash of a log: equal records at equal offsets have equal hashes, however they were batched,
//! compressed or stored. `docs/STORAGE.md` defines it.

use falcon_protocol::batch::RecordView;
use sha2::{Digest, Sha256};

/// SHA-256 over records in the order of their offsets.
#[derive(Default)]
pub(super) struct LogDigest {
    hash: Sha256,
}

impl LogDigest {
    pub(super) fn push(&mut self, record: &RecordView) {
        self.hash.update(record.offset.get().to_le_bytes());
        self.hash.update(record.timestamp_ms.to_le_bytes());
        for part in [&record.key, &record.value] {
            match part {
                None => self.hash.update(0_u64.to_le_bytes()),
                Some(bytes) => {
                    self.hash.update((bytes.len() as u64 + 1).to_le_bytes());
                    self.hash.update(bytes);
                }
            }
        }
        self.hash
            .update((record.headers.len() as u64).to_le_bytes());
        for header in &record.headers {
            for bytes in [header.name.as_bytes(), &header.value] {
                self.hash.update((bytes.len() as u64).to_le_bytes());
                self.hash.update(bytes);
            }
        }
    }

    pub(super) fn finish(self) -> String {
        let digits = self.hash.finalize();
        let digits = digits.iter().map(|byte| format!("{byte:02x}"));
        digits.collect::<Vec<_>>().concat()
    }
}

//! Values that follow from their place, so that every reader can check every record by itself.

use falcon_client::Delivered;

const BYTES_MIN: usize = 100;

/// The value of the record at this offset of a partition, 100 B to 2 KB, mostly small.
pub(super) fn value(stream: u64, offset: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(stream << 40 ^ offset);
    let more = if random.u8(..) < 224 { 500 } else { 1_900 };
    let bytes = BYTES_MIN + random.usize(..more);
    let mut value = Vec::with_capacity(bytes + 8);
    while value.len() < bytes {
        value.extend_from_slice(&random.u64(..).to_le_bytes());
    }
    value.truncate(bytes);
    value
}

/// What is due next in one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    stream: u64,
    /// `None` until the first record says where the reader began.
    next: Option<u64>,
}

impl Due {
    pub(super) const fn new(stream: u64, next: Option<u64>) -> Self {
        Self { stream, next }
    }

    /// Whether this is the next record, with the bytes that belong there; else what is wrong.
    pub(super) fn check(&mut self, record: &Delivered) -> Result<(), String> {
        let offset = record.offset.get();
        let place = || format!("{}/{} at {offset}", record.topic, record.partition);
        let due = self.next.replace(offset + 1);
        if let Some(due) = due.filter(|due| *due != offset) {
            return Err(format!("{}: {due} was due", place()));
        }
        if record.value.as_deref() != Some(&value(self.stream, offset)[..]) {
            return Err(format!("{}: not the bytes that belong there", place()));
        }
        Ok(())
    }
}

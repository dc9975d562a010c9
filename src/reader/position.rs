//! From a position (earliest, latest, a time, the last n) to an offset.

use falcon_protocol::message::StartPosition;
use falcon_protocol::{Batch, Offset, PartitionId};

use super::{ReadFailure, Reader, check_range, explain};
use crate::store::{ReadError, Store};
use crate::writer::PartitionView;

/// Bytes read at a time while looking for a record by its time.
const SCAN_BYTES: usize = 1024 * 1024;

impl Reader {
    /// The offset of a position; the high watermark when no record matches.
    pub async fn resolve(
        &self,
        view: &PartitionView,
        position: StartPosition,
    ) -> Result<Offset, ReadFailure> {
        let (low, high) = (view.log_start(), view.high_watermark());
        match position {
            StartPosition::Earliest => Ok(low),
            StartPosition::Latest => Ok(high),
            StartPosition::Offset(offset) => check_range(view, offset).map(|_| offset),
            StartPosition::Last(records) => Ok(Offset(high.0.saturating_sub(records)).max(low)),
            StartPosition::Timestamp(timestamp_ms) => {
                let id = view.id;
                let search = move |store: &dyn Store| find(store, id, low..high, timestamp_ms);
                let found = self.blocking(search).await?;
                found.map_err(|failure| explain(view, low, failure))
            }
        }
    }
}

/// First offset in `range` whose record has the time or a later one, else the range's end.
/// Damaged records are passed over: they cannot be delivered anyway.
fn find(
    store: &dyn Store,
    id: PartitionId,
    range: core::ops::Range<Offset>,
    timestamp_ms: i64,
) -> Result<Offset, ReadError> {
    let mut from = range.start;
    while from < range.end {
        let Some(base) = store.find_time(id, from, timestamp_ms)? else {
            break;
        };
        from = from.max(base);
        if from >= range.end {
            break;
        }
        let batches = match store.read(id, from, range.end, SCAN_BYTES) {
            Ok(batches) => batches,
            Err(ReadError::Damaged(damage)) => {
                from = damage.range.end.max(from.advance(1));
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let before = from;
        for mut run in batches {
            while let Ok(batch) = Batch::split_from(&mut run) {
                if let Some(found) = find_in(&batch, from, timestamp_ms) {
                    return Ok(found);
                }
                from = from.max(batch.header().end_offset());
            }
        }
        if from == before {
            return Err(ReadError::Missing { offset: from });
        }
    }
    Ok(range.end)
}

fn find_in(batch: &Batch, from: Offset, timestamp_ms: i64) -> Option<Offset> {
    if batch.header().max_timestamp_ms < timestamp_ms {
        return None;
    }
    let records = batch.records().ok()?.map_while(Result::ok);
    let mut matching = records.filter(|r| r.offset >= from && r.timestamp_ms >= timestamp_ms);
    matching.next().map(|record| record.offset)
}

//! Reading around damage inside an extent.

use std::sync::Arc;

use bytes::Bytes;

use super::walk::Taker;
use crate::io::DiskFile;
use crate::store::local::index::Place;
use crate::store::local::journal::salvage::find_batches;
use crate::store::{Damage, ReadError};

/// Reads the whole extent afresh, takes what proves itself, and names the gap when the next offset
/// lies in one.
pub(super) fn read_exactly(
    file: &dyn DiskFile,
    place: &Place,
    taker: &mut Taker,
) -> Result<(), ReadError> {
    // LIMIT: an extent is one batch or `extent_bytes`, and the file bounds what is read.
    let left = file.len_bytes().unwrap_or(0).saturating_sub(place.position);
    let bytes = u64::from(place.extent.bytes).min(left);
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(0)];
    let read = file
        .read_at(place.position, &mut buffer)
        .map_err(|error| ReadError::Io(Arc::new(error)))?;
    buffer.truncate(read);
    let found = find_batches(taker.partition(), &Bytes::from(buffer));
    let mut whole_until = place.extent.base_offset;
    for batch in found {
        let Some(bytes) = batch.bytes else {
            continue;
        };
        let header = batch.header;
        if header.base_offset > taker.next() && whole_until <= taker.next() {
            let damage = Damage {
                partition: taker.partition(),
                range: whole_until..header.base_offset,
            };
            return Err(ReadError::Damaged(damage));
        }
        whole_until = header.end_offset();
        if !taker.offer(&header, &bytes) {
            return Ok(());
        }
    }
    if whole_until < place.extent.end_offset() && taker.next() >= whole_until {
        let damage = Damage {
            partition: taker.partition(),
            range: whole_until..place.extent.end_offset(),
        };
        return Err(ReadError::Damaged(damage));
    }
    Ok(())
}

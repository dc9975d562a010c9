//! The wire protocol of the Falcon event broker.
//!
//! Owns every byte that crosses the network and, because the broker stores batches as they were
//! sent, the record batches on disk: [frames](frame), [messages](message), [record batches](batch),
//! [error codes](codes), [limits] and the [partitioning hash](partitioner).
//!
//! Promises: every decoder survives arbitrary bytes without a panic and without allocating more
//! than the limit it was given; `decode(encode(x)) == x`; the bytes of version 1 never change
//! (golden files in `tests/golden`).
//!
//! Must not know: sockets, files, clocks, tasks. `docs/PROTOCOL.md` specifies every byte for
//! clients in other languages.

pub mod batch;
pub mod codes;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod message;
pub mod partitioner;
pub mod record;
pub mod wire;

pub use batch::{Batch, BatchBuilder, BatchError, BatchHeader, Codec, Producer, Stamp};
pub use codes::{ErrorCode, Outcome, Retry};
pub use frame::{FRAME_HEADER_BYTES, Frame, FrameError, FrameHeader, Kind};
pub use ids::{MemberId, Offset, OwnerEpoch, Partition, PartitionId, ProducerId, TopicId};
pub use record::{Header, Record};

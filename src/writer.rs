//! The one thread that drains and appends, and what follows a group: sync, publication, ack.
//!
//! Owns all mutable state: catalog, partition bounds, producer sequences, committed offsets, fences. It alone
//! calls the store's write side. Promises: nothing is answered before the sync it depends on;
//! readers see a change only after its sync, and all changes of a commit group at once; commands take effect in the order of the queue. After
//! the first failed write or sync nothing is acknowledged any more. Must not know: sockets, frames,
//! error numbers.

mod admit;
mod answers;
mod command;
mod decide;
mod error;
mod fences;
mod finish;
mod handle;
mod lane;
mod offsets;
mod recover;
mod run;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod topics;
mod turn;
mod views;
mod watermark;

pub use command::{
    Answer, Appended, Command, CommitOffsets, Flush, Publish, PublishAnswer, Step, StepEntry,
    TopicAlteration, Trim,
};
pub use error::{JournalError, OffsetsError, ProducerError, PublishError, StepError, TopicError};
pub use fences::Fenced;
pub use handle::{QueueClosed, WriterHandle};
pub use run::{Running, spawn};
pub use state::{State, StateLimits};
pub use views::{PartitionView, Views, Watch, Watcher, WriteState};

//! The atomic step and its answer.

use bytes::Bytes;
use falcon_fuzz::{Hints, Refusal, RoundTrip, refused};
use falcon_protocol::limits::{CONTROL_BYTES_MAX, STEP_BATCHES_MAX};
use falcon_protocol::message::*;

use super::values::Any;
use super::{batches, wire};

/// What serde reserves at most for the list of offsets before it has read one.
const LIST_BYTES: u64 = 1 << 20;

const TRAILING: Refusal = refused("trailing", "");

pub(super) static STEP: RoundTrip<Step> = RoundTrip {
    hints: Hints {
        fields: &[(4, 4), (8, 4), (28, 4), (48, 4)],
        values: &[STEP_BATCHES_MAX as u64, CONTROL_BYTES_MAX as u64],
    },
    memory_bytes: 4096 + LIST_BYTES,
    expected: &[
        refused("truncated", "batches"),
        refused("truncated", "commit"),
        refused("truncated", "batch"),
        refused("invalid", "batches"),
        refused("invalid", "commit_bytes"),
        refused("invalid", "commit"),
        TRAILING,
    ],
    ..RoundTrip::new(
        "step",
        |random| Step {
            timeout_ms: Any::any(random),
            batches: (0..random.u8(0..4))
                .map(|_| StepBatch {
                    partition: Any::any(random),
                    expected: Any::any(random),
                    batch: batches::any_batch(random),
                })
                .collect(),
            commit: Any::any(random),
        },
        |value, to| to.extend_from_slice(&value.encode().expect("it is small")),
        |bytes| Step::decode(Bytes::copy_from_slice(bytes)).map_err(wire),
    )
};

pub(super) static STEP_ACKS: RoundTrip<Vec<PublishAck>> = RoundTrip {
    expected: &[
        refused("truncated", "base_offset"),
        refused("truncated", "duplicate"),
        refused("invalid", "duplicate"),
    ],
    ..RoundTrip::new(
        "step-acks",
        Any::any,
        |acks, to| to.extend_from_slice(&encode_step_acks(acks)),
        |bytes| decode_step_acks(bytes).map_err(wire),
    )
};

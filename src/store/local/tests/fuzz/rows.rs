//! Rows of snapshots and commit groups: keys and values of every table, and their replay.

use falcon_fuzz::{Decoder, Family, Hints, Refusal, Rng, RoundTrip, any_text, refused};
use falcon_protocol::message::TopicConfig;
use falcon_protocol::wire::WireError;
use falcon_protocol::{OwnerEpoch, ProducerId, TopicId};

use super::super::*;
use super::any::{narrow, partition, time, wide};
use crate::catalog::Topic;
use crate::group::{Committed, Fences};
use crate::partition::{BatchMark, PRODUCER_BATCHES_KEPT, PartitionState, ProducerState};
use crate::writer::{State, StateLimits};

fn wire(error: WireError) -> Refusal {
    match error {
        WireError::Truncated { field } => refused("truncated", field),
        WireError::Invalid { field } => refused("invalid", field),
        WireError::Trailing { .. } => refused("trailing", ""),
    }
}

const TRAILING: Refusal = refused("trailing", "");
const VERSION: Refusal = refused("invalid", "version");

/// Key and value as they stand in one buffer.
fn split(bytes: &[u8], key: usize) -> (&[u8], &[u8]) {
    bytes.split_at(key.min(bytes.len()))
}

static TOPIC: RoundTrip<Topic> = RoundTrip {
    hints: Hints {
        fields: &[(4, 1), (17, 2)],
        values: &[],
    },
    expected: &[
        VERSION,
        TRAILING,
        refused("invalid", "name"),
        refused("invalid", "setting"),
        refused("truncated", "setting"),
        refused("truncated", "name"),
    ],
    ..RoundTrip::new(
        "topic-row",
        |random| Topic {
            id: TopicId(narrow(random)),
            name: any_text(random, 200),
            partitions: narrow(random),
            config: TopicConfig {
                retention_age_ms: random.bool().then(|| wide(random)),
                retention_bytes: random.bool().then(|| wide(random)),
            },
            created_ms: time(random),
        },
        |topic, to| {
            to.extend_from_slice(&Topic::row_key(topic.id));
            to.extend_from_slice(&topic.encode_value());
        },
        |bytes| {
            let (key, value) = split(bytes, 4);
            Topic::decode(key, value).map_err(wire)
        },
    )
};

static PARTITION: RoundTrip<(PartitionId, PartitionState)> = RoundTrip {
    hints: Hints {
        fields: &[(8, 1)],
        values: &[],
    },
    expected: &[VERSION, TRAILING, refused("truncated", "bytes")],
    ..RoundTrip::new(
        "partition-row",
        |random| {
            let mut state = PartitionState::default();
            (state.log_start, state.log_end) = (Offset(wide(random)), Offset(wide(random)));
            (state.bytes, state.append_time_ms) = (wide(random), time(random));
            (partition(random), state)
        },
        |(partition, state), to| {
            to.extend_from_slice(&PartitionState::row_key(*partition));
            to.extend_from_slice(&state.encode_value());
        },
        |bytes| {
            let (key, value) = split(bytes, 8);
            let partition = PartitionState::decode_key(key).map_err(wire)?;
            let mut state = PartitionState::default();
            state.restore(value).map_err(wire)?;
            Ok((partition, state))
        },
    )
};

static PRODUCER: RoundTrip<(PartitionId, ProducerId, ProducerState)> = RoundTrip {
    // As many batches as the row has room for.
    seal: |bytes, _| {
        if let Some(batches) = bytes.len().checked_sub(22) {
            bytes.truncate(22 + batches / 28 * 28);
            falcon_fuzz::set_number(bytes, 21, 1, batches as u64 / 28);
        }
    },
    hints: Hints {
        fields: &[(16, 1), (21, 1)],
        values: &[PRODUCER_BATCHES_KEPT as u64],
    },
    expected: &[
        VERSION,
        TRAILING,
        refused("invalid", "count"),
        refused("truncated", "base_sequence"),
    ],
    ..RoundTrip::new(
        "producer-row",
        |random| {
            let mark = |random: &mut Rng| BatchMark {
                base_sequence: wide(random),
                record_count: narrow(random),
                base_offset: Offset(wide(random)),
                append_time_ms: time(random),
            };
            let state = ProducerState {
                epoch: narrow(random),
                batches: (0..random.usize(0..=PRODUCER_BATCHES_KEPT))
                    .map(|_| mark(random))
                    .collect(),
            };
            (partition(random), ProducerId(wide(random)), state)
        },
        |(partition, producer, state), to| {
            to.extend_from_slice(&ProducerState::row_key(*partition, *producer));
            to.extend_from_slice(&state.encode_value());
        },
        |bytes| {
            let (key, value) = split(bytes, 16);
            let (partition, producer) = ProducerState::decode_key(key).map_err(wire)?;
            let state = ProducerState::decode_value(value).map_err(wire)?;
            assert!(state.batches.len() <= PRODUCER_BATCHES_KEPT);
            Ok((partition, producer, state))
        },
    )
};

/// The first byte is the length of the group's name.
static COMMITTED: RoundTrip<(PartitionId, String, Committed)> = RoundTrip {
    hints: Hints {
        fields: &[(0, 1)],
        values: &[200],
    },
    expected: &[
        VERSION,
        TRAILING,
        refused("invalid", "group"),
        refused("truncated", "note"),
    ],
    ..RoundTrip::new(
        "offset-row",
        |random| {
            let committed = Committed {
                offset: Offset(wide(random)),
                note: any_text(random, 256),
                commit_time_ms: time(random),
            };
            let group = format!("g{}", any_text(random, 199));
            (partition(random), group, committed)
        },
        |(partition, group, committed), to| {
            to.push(u8::try_from(group.len()).unwrap());
            to.extend_from_slice(&Committed::row_key(group, *partition));
            to.extend_from_slice(&committed.encode_value());
        },
        |bytes| {
            let (group_bytes, row) = bytes.split_first().ok_or(refused("short", ""))?;
            let (key, value) = split(row, 8 + usize::from(*group_bytes));
            let (partition, group) = Committed::decode_key(key).map_err(wire)?;
            let committed = Committed::decode_value(value).map_err(wire)?;
            Ok((partition, group, committed))
        },
    )
};

/// The first byte is the length of the group's name.
static FENCE: RoundTrip<(PartitionId, String, OwnerEpoch)> = RoundTrip {
    hints: Hints {
        fields: &[(0, 1)],
        values: &[0, 200],
    },
    expected: &[
        VERSION,
        TRAILING,
        refused("invalid", "group"),
        refused("truncated", "epoch"),
        refused("invalid", "epoch"),
    ],
    ..RoundTrip::new(
        "fence-row",
        |random| {
            // Half of them are short, with an epoch of one bit: damage makes of those the epoch 0, which there is not,
            // often enough for each run.
            let (group, epoch) = if random.bool() {
                ("g".to_owned(), 1 << random.u32(..64))
            } else {
                (format!("g{}", any_text(random, 199)), wide(random).max(1))
            };
            let epoch = OwnerEpoch(epoch);
            (partition(random), group, epoch)
        },
        |(partition, group, epoch), to| {
            to.push(u8::try_from(group.len()).unwrap());
            to.extend_from_slice(&Committed::row_key(group, *partition));
            to.extend_from_slice(&Fences::encode_value(*epoch));
        },
        |bytes| {
            let (group_bytes, row) = bytes.split_first().ok_or(refused("short", ""))?;
            let (key, value) = split(row, 8 + usize::from(*group_bytes));
            let (partition, group) = Committed::decode_key(key).map_err(wire)?;
            let epoch = Fences::decode_value(value).map_err(wire)?;
            Ok((partition, group, epoch))
        },
    )
};

/// Rows of any table as a start meets them: table, length of the key, whether there is a value.
struct Replayed;

impl Decoder for Replayed {
    fn name(&self) -> &'static str {
        "replayed-row"
    }

    fn valid(&self, random: &mut Rng, to: &mut Vec<u8>) {
        let rows: [(u8, &dyn Decoder, u8); 3] =
            [(1, &TOPIC, 4), (2, &PARTITION, 8), (3, &PRODUCER, 16)];
        let is_put = u8::from(random.u8(0..4) > 0);
        if let Some((table, decoder, key)) = random.choice(rows).filter(|_| random.bool()) {
            to.extend([table, key, is_put]);
            decoder.valid(random, to);
            return;
        }
        match random.u8(0..5) {
            0 => {
                to.extend([4, 4, is_put]);
                to.extend_from_slice(b"name");
                to.extend_from_slice(&wide(random).to_le_bytes());
                to.extend_from_slice(&narrow(random).to_le_bytes());
            }
            1 => {
                to.extend([7, 12, is_put]);
                to.extend_from_slice(&Committed::row_key("name", partition(random)));
                let epoch = OwnerEpoch(wide(random).max(1));
                to.extend_from_slice(&Fences::encode_value(epoch));
            }
            2 => {
                to.extend([6, 11, is_put]);
                to.extend_from_slice(b"fence_floor");
                to.extend_from_slice(&wide(random).to_le_bytes());
            }
            3 => {
                to.extend([6, 13, is_put]);
                to.extend_from_slice(b"next_topic_id");
                to.extend_from_slice(&wide(random).to_le_bytes());
            }
            _ => {
                to.extend([6, 16, is_put]);
                to.extend_from_slice(b"next_producer_id");
                to.extend_from_slice(&wide(random).to_le_bytes());
            }
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let (head, row) = bytes.split_first_chunk::<3>().ok_or(refused("short", ""))?;
        let [table, key_bytes, is_put] = *head;
        let table = Table::from_number(table).ok_or(refused("table", ""))?;
        let limits = StateLimits {
            topics_max: 1,
            partitions_max: 1,
            committed_offsets_max: 1,
            producers_max: 1,
        };
        let mut state = State::new(limits);
        let (key, value) = split(row, usize::from(key_bytes));
        state.row(table, key, (is_put != 0).then_some(value));
        Ok(())
    }

    fn memory_bytes_max(&self, bytes: &[u8]) -> u64 {
        64 * 1024 + 64 * bytes.len() as u64
    }

    fn expected(&self) -> &[Refusal] {
        const { &[refused("table", ""), refused("short", "")] }
    }
}

#[test]
fn rows_survive_damage() {
    let decoders: [&dyn Decoder; 6] =
        [&TOPIC, &PARTITION, &PRODUCER, &COMMITTED, &FENCE, &Replayed];
    let family = Family {
        name: "rows",
        command: "cargo test -p falcon --lib fuzz::rows::",
        decoders: &decoders,
    };
    family.run();
}

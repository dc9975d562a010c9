use falcon_protocol::{BatchBuilder, BatchHeader, Codec, PartitionId, Record, Stamp};

use super::*;

fn producer(epoch: u32, base_sequence: u64) -> Producer {
    Producer {
        id: ProducerId(7),
        epoch,
        base_sequence,
    }
}

fn publish(
    state: &mut PartitionState,
    producer: Producer,
    count: u32,
) -> Result<Admission, AdmitError> {
    let admission = state.admit(&producer, count)?;
    if let Admission::Append { base_offset } = admission {
        let mut builder = BatchBuilder::new(Codec::None, 1 << 16);
        for _ in 0..count {
            builder.push(&Record::new("x"), 5).expect("fits");
        }
        let mut bytes = builder.build(producer).expect("not empty").to_vec();
        let partition = PartitionId::new(1, 0);
        let stamp = Stamp {
            partition,
            base_offset,
            append_time_ms: state.stamp_time(10),
            epoch: 1,
        };
        stamp.write(&mut bytes).expect("long enough");
        state.append(&BatchHeader::decode(&bytes).expect("valid"));
    }
    Ok(admission)
}

fn append(base_offset: u64) -> Admission {
    Admission::Append {
        base_offset: Offset(base_offset),
    }
}

#[test]
fn offsets_are_dense() {
    let mut state = PartitionState::default();
    assert_eq!(publish(&mut state, Producer::default(), 3), Ok(append(0)));
    assert_eq!(publish(&mut state, Producer::default(), 2), Ok(append(3)));
    assert_eq!(state.log_end, Offset(5));
}

#[test]
fn a_batch_sent_again_gets_its_first_offsets() {
    let mut state = PartitionState::default();
    assert_eq!(publish(&mut state, producer(0, 0), 3), Ok(append(0)));
    assert_eq!(publish(&mut state, producer(0, 3), 2), Ok(append(3)));
    let again = publish(&mut state, producer(0, 0), 3);
    assert!(
        matches!(again, Ok(Admission::Duplicate(m)) if m.base_offset == Offset(0)),
        "{again:?}"
    );
    assert_eq!(state.log_end, Offset(5));
}

#[test]
fn all_that_a_client_may_have_in_flight_is_recognised_again() {
    // What the protocol allows: docs/PROTOCOL.md. Fewer kept here would store a batch twice.
    const IN_FLIGHT: u64 = 8;
    let mut state = PartitionState::default();
    for sequence in 0..IN_FLIGHT + 3 {
        assert_eq!(
            publish(&mut state, producer(0, sequence), 1),
            Ok(append(sequence))
        );
    }
    for sequence in 3..IN_FLIGHT + 3 {
        let again = publish(&mut state, producer(0, sequence), 1);
        assert!(
            matches!(again, Ok(Admission::Duplicate(m)) if m.base_offset == Offset(sequence)),
            "{sequence}: {again:?}"
        );
    }
}

#[test]
fn a_gap_and_a_batch_cut_differently_are_out_of_sequence() {
    let mut state = PartitionState::default();
    publish(&mut state, producer(0, 0), 3).expect("first");
    let gap = publish(&mut state, producer(0, 4), 1);
    assert!(matches!(
        gap,
        Err(AdmitError::OutOfSequence {
            expected: 3,
            found: 4,
            ..
        })
    ));
    let cut = publish(&mut state, producer(0, 0), 2);
    assert!(matches!(cut, Err(AdmitError::OutOfSequence { .. })));
}

#[test]
fn a_newer_epoch_starts_at_zero_and_fences_the_older() {
    let mut state = PartitionState::default();
    publish(&mut state, producer(0, 0), 3).expect("first");
    assert!(matches!(
        publish(&mut state, producer(1, 3), 1),
        Err(AdmitError::OutOfSequence { .. })
    ));
    assert_eq!(publish(&mut state, producer(1, 0), 1), Ok(append(3)));
    assert!(matches!(
        publish(&mut state, producer(0, 3), 1),
        Err(AdmitError::Fenced { .. })
    ));
}

#[test]
fn an_unknown_publisher_may_not_continue() {
    let state = PartitionState::default();
    let refused = state.admit(&producer(0, 9), 1);
    assert!(matches!(refused, Err(AdmitError::UnknownProducer { .. })));
}

#[test]
fn rows_round_trip_and_refuse_rubbish() {
    let mut state = PartitionState::default();
    for sequence in 0..20 {
        publish(&mut state, producer(2, sequence), 1).expect("in order");
    }
    state.trim(Offset(4), 10);
    let id = PartitionId::new(3, 9);
    assert_eq!(
        PartitionState::decode_key(&PartitionState::row_key(id)),
        Ok(id)
    );
    let mut back = PartitionState::default();
    back.restore(&state.encode_value()).expect("valid");
    for (producer_id, known) in state.producers() {
        let key = ProducerState::row_key(id, producer_id);
        assert_eq!(ProducerState::decode_key(&key), Ok((id, producer_id)));
        assert_eq!(known.batches.len(), PRODUCER_BATCHES_KEPT);
        back.restore_producer(
            producer_id,
            ProducerState::decode_value(&known.encode_value()).expect("valid"),
        );
    }
    assert_eq!(back, state);
    assert!(back.restore(&[9; 33]).is_err());
    assert!(back.restore(&[]).is_err());
}

#[test]
fn a_trim_never_goes_back_or_beyond_the_end() {
    let mut state = PartitionState::default();
    publish(&mut state, Producer::default(), 5).expect("plain");
    assert!(state.trim(Offset(3), 1));
    assert!(!state.trim(Offset(2), 1));
    assert!(state.trim(Offset(99), 1));
    assert_eq!(state.log_start, Offset(5));
}

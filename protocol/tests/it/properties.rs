//! Arbitrary bytes and arbitrary values.

use bytes::Bytes;
use falcon_protocol::message::*;
use falcon_protocol::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn any_record() -> impl Strategy<Value = Record> {
    let bytes = || vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let header = ("[a-z]{0,8}", bytes()).prop_map(|(name, value)| Header { name, value });
    (
        option::of(bytes()),
        option::of(bytes()),
        vec(header, 0..4),
        option::of(any::<i32>()),
    )
        .prop_map(|(key, value, headers, time)| Record {
            key,
            value,
            headers,
            timestamp_ms: time.map(i64::from),
        })
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::None), Just(Codec::Lz4), Just(Codec::Zstd)]
}

fn build(records: &[Record], codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new(codec, 1 << 20);
    for record in records {
        builder.push(record, 77).unwrap();
    }
    builder.build(Producer::default()).unwrap()
}

/// Everything a peer's bytes can reach. Nothing to check but that it returns.
fn decode_as_everything(bytes: &[u8]) {
    let _ = HelloRequest::decode(bytes);
    let _ = HelloResponse::decode(bytes);
    let _ = ErrorBody::decode(bytes);
    let _ = PublishHeader::decode(&mut &*bytes);
    let _ = PublishAck::decode(bytes);
    let _ = Fetch::decode(bytes);
    let _ = Credit::decode(bytes);
    let _ = Window::decode(bytes);
    let _ = Delivery::decode(Bytes::copy_from_slice(bytes));
    let _ = BatchHeader::decode(bytes);
    let _ = decode::<MetadataRequest>(bytes);
    let _ = decode::<MetadataResponse>(bytes);
    let _ = decode::<CreateTopic>(bytes);
    let _ = decode::<TopicDescription>(bytes);
    let _ = decode::<TopicPage>(bytes);
    let _ = decode::<AlterTopic>(bytes);
    let _ = decode::<InitProducer>(bytes);
    let _ = decode::<Subscribe>(bytes);
    let _ = decode::<Subscribed>(bytes);
    let _ = decode::<ListOffsets>(bytes);
    let _ = decode::<Vec<ListedOffset>>(bytes);
    let _ = decode::<CommitOffsets>(bytes);
    let _ = decode::<Vec<CommittedOffset>>(bytes);
    let _ = decode::<FetchOffsets>(bytes);
    let _ = decode::<GroupPage>(bytes);
    let _ = decode::<JoinGroup>(bytes);
    let _ = decode::<GroupReport>(bytes);
    let _ = decode::<GroupNews>(bytes);
    let _ = decode::<CommitOwned>(bytes);
    let _ = decode::<ResetOffsets>(bytes);
    let _ = decode::<GroupDescription>(bytes);
    let _ = decode::<GroupPartitionPage>(bytes);
    let _ = Step::decode(Bytes::copy_from_slice(bytes));
    let _ = decode_step_acks(bytes);
    if let Ok(batch) = Batch::from_bytes(Bytes::copy_from_slice(bytes)) {
        let _ = batch.verify();
        let _ = batch.check_records();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_comes_back_as_it_went_in(
        records in vec(any_record(), 1..40),
        codec in any_codec(),
    ) {
        let batch = Batch::from_bytes(build(&records, codec)).unwrap();
        batch.verify().unwrap();
        batch.check_records().unwrap();
        let back: Vec<RecordViewParts> = batch.records().unwrap().map(|r| parts(&r.unwrap())).collect();
        let sent: Vec<RecordViewParts> = records.iter().map(|r| (
            r.timestamp_ms.unwrap_or(77), r.key.clone(), r.value.clone(), r.headers.clone(),
        )).collect();
        prop_assert_eq!(back, sent);
    }

    #[test]
    fn the_walk_and_the_reader_agree_on_every_body(
        records in vec(any_record(), 1..10),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        // Damage the records, then make the checksum fit again: a faulty client, not a faulty wire.
        let mut bytes = build(&records, Codec::None).to_vec();
        for (at, value) in flips {
            let at = 80 + at.index(bytes.len() - 80);
            bytes[at] = value;
        }
        let crc = crc32fast::hash(&bytes[28..]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        let batch = Batch::from_bytes(Bytes::from(bytes)).unwrap();
        batch.verify().unwrap();
        let reads = batch.records().unwrap().all(|r| r.is_ok());
        match batch.check_records() {
            Ok(()) => prop_assert!(reads),
            Err(BatchError::Field { .. }) => {}
            Err(_) => prop_assert!(!reads),
        }
    }

    #[test]
    fn records_in_place_are_those_read_one_by_one(
        records in vec(any_record(), 1..20),
        codec in any_codec(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        (read_before, from) in (0_usize..22, 0_u64..22),
    ) {
        let mut bytes = build(&records, codec).to_vec();
        if codec == Codec::None {
            for (at, value) in flips {
                let at = 80 + at.index(bytes.len() - 80);
                bytes[at] = value;
            }
        }
        let batch = Batch::from_bytes(Bytes::from(bytes)).unwrap();
        let mut one_by_one = batch.records().unwrap();
        let mut in_place = batch.records().unwrap();
        for _ in 0..read_before {
            prop_assert_eq!(one_by_one.next(), in_place.next());
        }
        let taken = in_place.take_checked(Offset(from));
        prop_assert_eq!(taken.iter().len(), taken.len());
        let views: Vec<_> = taken.iter().collect();
        prop_assert_eq!(views.len(), taken.len(), "all that was taken can be read");
        let mut offset = taken.offsets().start;
        let mut views = views.into_iter();
        // Passed over, taken, then the same end or error.
        loop {
            match one_by_one.next() {
                Some(Ok(view)) if view.offset < Offset(from) => {}
                Some(Ok(view)) => {
                    prop_assert_eq!(view.offset, offset);
                    offset = offset.advance(1);
                    let in_place = views.next().map(|view| (view.offset, parts_in_place(&view)));
                    prop_assert_eq!(in_place, Some((view.offset, parts(&view))));
                }
                end => {
                    prop_assert!(views.next().is_none());
                    prop_assert_eq!(end, in_place.next());
                    break;
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in vec(any::<u8>(), 0..400)) {
        decode_as_everything(&bytes);
        if let Some(head) = bytes.first_chunk::<12>() {
            let _ = FrameHeader::decode(head, 1024);
        }
    }

    #[test]
    fn a_header_never_lets_a_large_body_pass(head in any::<[u8; 12]>(), max in any::<u32>()) {
        if let Ok(header) = FrameHeader::decode(&head, max) {
            prop_assert!(header.body_bytes <= max);
        }
    }

    #[test]
    fn damaged_messages_are_survived(
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        length in any::<prop::sample::Index>(),
    ) {
        let message = CommitOffsets {
            group: "billing".into(),
            offsets: vec![OffsetCommit {
                topic_id: TopicId(1),
                partition: Partition(2),
                offset: Offset(3),
                note: "note".into(),
            }; 3],
        };
        let mut bytes = encode(&message).unwrap().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes.truncate(length.index(bytes.len() + 1));
        decode_as_everything(&bytes);
    }
}

type RecordViewParts = (i64, Option<Bytes>, Option<Bytes>, Vec<Header>);

fn parts(view: &batch::RecordView) -> RecordViewParts {
    (
        view.timestamp_ms,
        view.key.clone(),
        view.value.clone(),
        view.headers.clone(),
    )
}

fn parts_in_place(view: &batch::RecordRef<'_>) -> RecordViewParts {
    let copy = |bytes| Bytes::copy_from_slice(bytes);
    let headers = view.headers.iter().map(|header| Header {
        name: header.name.to_owned(),
        value: copy(header.value),
    });
    let headers: Vec<Header> = headers.collect();
    assert_eq!(headers.len(), view.headers.len());
    (
        view.timestamp_ms,
        view.key.map(copy),
        view.value.map(copy),
        headers,
    )
}

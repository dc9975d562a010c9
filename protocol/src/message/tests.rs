use super::*;
use crate::ids::{Offset, Partition, PartitionId, TopicId};
use crate::wire::WireError;

#[test]
fn the_handshake_round_trips_and_ignores_later_fields() {
    let request = HelloRequest {
        version_min: 1,
        version_max: 3,
        frame_bytes_max: 1 << 20,
        codecs: 7,
        features: 0,
        client: "test/1".into(),
        credential: vec![1, 2],
    };
    let mut bytes = request.encode().to_vec();
    bytes.extend_from_slice(b"of a later version");
    assert_eq!(HelloRequest::decode(&bytes), Ok(request));
    assert!(HelloRequest::decode(b"GET / HTTP/1.1").is_err());
}

#[test]
fn a_count_that_claims_too_much_is_refused_without_allocating_it() {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&u64::MAX.to_le_bytes());
    assert!(decode::<MetadataRequest>(&bytes).is_err());
    bytes.splice(1.., (1_u64 << 20).to_le_bytes());
    assert!(decode::<MetadataRequest>(&bytes).is_err());
}

#[test]
fn a_text_that_claims_too_much_is_refused_by_its_length_not_by_its_absence() {
    let mut bytes = (CONTROL_BYTES_MAX as u64 - 100).to_le_bytes().to_vec();
    bytes.resize(40, b'a');
    let refused = decode::<DeleteTopic>(&bytes);
    let reason = bincode::error::DecodeError::LimitExceeded.to_string();
    assert!(matches!(refused, Err(MessageError::Decode(why)) if why.to_string() == reason));
}

#[test]
fn messages_of_every_length_are_read() {
    for length in [0, 1, 256, 4096, 65_536, 1 << 20, CONTROL_BYTES_MAX] {
        for length in length.saturating_sub(9)..=(length + 1).min(CONTROL_BYTES_MAX - 8) {
            let name = "a".repeat(length);
            let message = DeleteTopic { name };
            let bytes = encode(&message).expect("it is small enough");
            assert_eq!(decode::<DeleteTopic>(&bytes).ok(), Some(message));
        }
    }
}

#[test]
fn left_over_bytes_are_refused() {
    let mut bytes = encode(&DeleteTopic { name: "a".into() })
        .expect("encodes")
        .to_vec();
    assert!(decode::<DeleteTopic>(&bytes).is_ok());
    bytes.push(0);
    assert!(matches!(
        decode::<DeleteTopic>(&bytes),
        Err(MessageError::Trailing { bytes: 1 })
    ));
}

#[test]
fn the_data_path_round_trips() {
    let fetch = Fetch {
        partition: PartitionId::new(4, 2),
        offset: Offset(9),
        bytes_max: 10,
        wait_ms: 11,
    };
    assert_eq!(Fetch::decode(&fetch.encode()), Ok(fetch));
    let credit = Credit {
        bytes_total: 5,
        records_total: u64::MAX,
    };
    assert_eq!(Credit::decode(&credit.encode()), Ok(credit));
    let error = ErrorBody {
        retry_after_ms: 5,
        partition: Some(Partition(3)),
        low: 1,
        high: 2,
        text: "ä".repeat(600),
    };
    let back = ErrorBody::decode(&error.encode()).expect("decodes");
    assert_eq!(
        (back.low, back.high, back.partition),
        (1, 2, Some(Partition(3)))
    );
    assert_eq!(back.text.len(), 1024);
}

#[test]
fn a_step_reserves_nothing_for_batches_that_are_not_there() {
    let mut body = vec![0; STEP_HEADER_BYTES + 39];
    body[4] = 2;
    let refused = Step::decode(body.into());
    assert_eq!(refused, Err(WireError::Truncated { field: "batches" }));
}

#[test]
fn a_step_with_an_impossible_condition_keeps_a_condition() {
    let step = Step {
        timeout_ms: 0,
        batches: vec![StepBatch {
            partition: PartitionId::new(4, 2),
            expected: Some(Offset(u64::MAX)),
            batch: Bytes::new(),
        }],
        commit: None,
    };
    let back = Step::decode(step.encode().expect("it is small")).expect("it decodes");
    assert_eq!(back.batches[0].expected, Some(Offset(u64::MAX - 1)));
}

#[test]
fn topic_settings_name_the_key_that_is_wrong() {
    let mut config = TopicConfig::default();
    let entry = |key: &str, value: Option<&str>| ConfigEntry {
        key: key.into(),
        value: value.map(Into::into),
    };
    config
        .apply(&[entry("retention_bytes", Some("100"))])
        .expect("valid");
    assert_eq!(config.retention_bytes, Some(100));
    assert_eq!(
        config.to_entries(),
        vec![entry("retention_bytes", Some("100"))]
    );
    assert!(
        config
            .apply(&[entry("retention_bytes", Some("x"))])
            .is_err_and(|e| e.contains("retention_bytes"))
    );
    assert!(
        config
            .apply(&[entry("colour", None)])
            .is_err_and(|e| e.contains("colour"))
    );
    config
        .apply(&[entry("retention_bytes", None)])
        .expect("valid");
    assert_eq!(config, TopicConfig::default());
    let _ = TopicId(1);
}

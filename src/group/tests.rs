use super::*;

fn committed(offset: u64) -> Committed {
    Committed {
        offset: Offset(offset),
        note: "n".into(),
        commit_time_ms: 3,
    }
}

#[test]
fn rows_round_trip() {
    let id = PartitionId::new(4, 2);
    let key = Committed::row_key("billing", id);
    assert_eq!(Committed::decode_key(&key), Ok((id, "billing".into())));
    assert_eq!(
        Committed::decode_value(&committed(9).encode_value()),
        Ok(committed(9))
    );
    assert!(Committed::decode_key(&key[..8]).is_err());
}

#[test]
fn the_count_follows_every_change() {
    let mut offsets = Offsets::default();
    let (a, b) = (PartitionId::new(1, 0), PartitionId::new(2, 0));
    offsets.put("g", a, committed(1));
    offsets.put("g", a, committed(2));
    offsets.put("g", b, committed(3));
    offsets.put("h", a, committed(4));
    assert_eq!(offsets.len(), 3);
    assert_eq!(offsets.groups_after(None).collect::<Vec<_>>(), ["g", "h"]);
    offsets.remove_topic(TopicId(1));
    assert_eq!(offsets.len(), 1);
    assert_eq!(offsets.groups_after(None).collect::<Vec<_>>(), ["g"]);
    offsets.remove("g", b);
    assert!(offsets.is_empty() && offsets.group("g").is_none());
}

#[test]
fn a_fence_s_row_round_trips_and_zero_is_none() {
    let epoch = falcon_protocol::OwnerEpoch(7);
    let value = Fences::encode_value(epoch);
    assert_eq!(Fences::decode_value(&value), Ok(epoch));
    assert!(Fences::decode_value(&value[..8]).is_err());
    let none = Fences::encode_value(falcon_protocol::OwnerEpoch(0));
    assert!(Fences::decode_value(&none).is_err());
}

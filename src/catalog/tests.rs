use super::*;

fn topic(id: u32, name: &str) -> Topic {
    let config = TopicConfig {
        retention_age_ms: Some(5),
        retention_bytes: None,
    };
    Topic {
        id: TopicId(id),
        name: name.into(),
        partitions: 3,
        config,
        created_ms: 77,
    }
}

#[test]
fn rows_round_trip_and_refuse_rubbish() {
    let topic = topic(9, "orders");
    let (key, value) = (Topic::row_key(topic.id), topic.encode_value());
    assert_eq!(Topic::decode(&key, &value), Ok(topic));
    for length in 0..value.len() {
        assert!(Topic::decode(&key, &value[..length]).is_err());
    }
}

#[test]
fn pages_follow_the_names() {
    let mut catalog = Catalog::default();
    for (id, name) in [(3, "c"), (1, "a"), (2, "b")] {
        catalog.put(topic(id, name));
    }
    let after = |name| {
        catalog
            .topics_after(name)
            .map(|t| t.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(after(None), ["a", "b", "c"]);
    assert_eq!(after(Some("a")), ["b", "c"]);
    assert_eq!(after(Some("bb")), ["c"]);
    assert_eq!(catalog.partition_count(), 9);
    assert!(catalog.remove(TopicId(2)).is_some());
    assert!(catalog.by_name("b").is_none());
}

//! Refusals that end a batch, and what they leave behind.

use crate::publishing::IN_FLIGHT;
use std::time::Duration;

use falcon_client::{Error, ErrorCode, PublishError};

use crate::peer::{OnPublish, Peer, TOPIC};
use crate::within;

#[tokio::test]
async fn a_definite_refusal_fails_one_batch_and_those_behind_it_arrive_in_order() {
    for position in 0..IN_FLIGHT {
        let peer = Peer::start(1).await;
        let client = peer.client().await;
        let builder = client.publisher(TOPIC).batch_bytes(500);
        let orders = builder.build().await.unwrap();
        peer.with(|world| world.is_holding = true);
        let mut tickets = Vec::new();
        for index in 0..16 {
            tickets.push(orders.send(format!("{index:0>300}")).await.unwrap());
        }
        peer.until("batches", |world| world.publishes.len() == IN_FLIGHT)
            .await;
        let refusal = [OnPublish::Refuse(ErrorCode::InvalidBatch)];
        peer.script(std::iter::repeat_n(OnPublish::Ack, position).chain(refusal));
        peer.with(|world| world.is_holding = false);

        for (index, ticket) in tickets.into_iter().enumerate() {
            let ended = within(ticket).await;
            if index == position {
                let error = ended.unwrap_err();
                assert_eq!(error.code(), Some(ErrorCode::InvalidBatch));
                assert!(!error.is_retryable() && !error.may_have_happened());
            } else {
                ended.unwrap();
            }
        }
        let expected: Vec<String> = (0..16)
            .filter(|index| *index != position)
            .map(|index| format!("{index:0>300}"))
            .collect();
        assert_eq!(peer.with(|world| world.values(0)), expected);
        within(orders.publish("later")).await.unwrap();
        let flushed = within(orders.flush()).await.unwrap_err();
        assert_eq!(flushed.code(), Some(ErrorCode::InvalidBatch));
        within(orders.flush()).await.unwrap();
    }
}

#[tokio::test]
async fn a_producer_the_broker_forgot_gets_a_new_id_and_nothing_is_lost() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    within(orders.publish("one")).await.unwrap();
    peer.script([OnPublish::Refuse(ErrorCode::UnknownProducer)]);
    within(orders.publish("two")).await.unwrap();
    assert_eq!(peer.with(|world| world.values(0)), ["one", "two"]);
    assert_eq!(peer.with(|world| world.producers_granted), 2);
}

#[tokio::test]
async fn a_fenced_publisher_fails_for_good() {
    let peer = Peer::start(2).await;
    let client = peer.client().await;
    let builder = client.publisher(TOPIC).name("billing-1");
    let orders = builder.build().await.unwrap();
    peer.script([OnPublish::Refuse(ErrorCode::ProducerFenced)]);
    let error = within(orders.publish("x")).await.unwrap_err();
    assert!(matches!(error, PublishError::Fenced { .. }), "{error}");
    assert!(!error.is_retryable());
    let later = within(orders.send("y")).await.unwrap_err();
    assert!(matches!(later, PublishError::Fenced { .. }), "{later}");
}

#[tokio::test]
async fn a_deleted_topic_fails_what_waits_and_a_new_one_of_its_name_is_used() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    within(orders.publish("old")).await.unwrap();

    peer.with(|world| world.topic_exists = false);
    let error = within(orders.publish("nowhere")).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic), "{error}");
    assert!(!error.may_have_happened());

    peer.with(|world| {
        world.topic_exists = true;
        world.topic_id = falcon_client::TopicId(8);
        world.logs = vec![Vec::new()];
    });
    let receipt = within(orders.publish("new")).await.unwrap();
    assert_eq!(receipt.offset.get(), 0);
    assert_eq!(peer.with(|world| world.values(0)), ["new"]);
}

#[tokio::test]
async fn an_unknown_topic_is_said_at_build_with_the_command_that_helps() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let error = client.publisher("other").build().await.unwrap_err();
    assert!(matches!(error, Error::UnknownTopic { .. }));
    assert!(error.to_string().contains("falcon topic create other"));
}

#[tokio::test]
async fn the_delivery_timeout_ends_what_cannot_be_delivered_and_later_records_go_on() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let builder = client
        .publisher(TOPIC)
        .delivery_timeout(Duration::from_millis(300));
    let orders = builder.build().await.unwrap();
    peer.script([OnPublish::Swallow]);
    let error = within(orders.publish("swallowed")).await.unwrap_err();
    assert!(
        matches!(error, PublishError::DeliveryTimeout { .. }),
        "{error}"
    );
    assert!(error.may_have_happened());

    peer.with(|world| {
        world.script.extend(std::iter::repeat_n(
            OnPublish::Refuse(ErrorCode::StorageFull),
            1_000,
        ));
    });
    let error = within(orders.publish("refused")).await.unwrap_err();
    assert!(
        matches!(error, PublishError::DeliveryTimeout { .. }),
        "{error}"
    );
    assert!(!error.may_have_happened());
    assert!(error.to_string().contains("storage_full"), "{error}");

    peer.with(|world| world.script.clear());
    within(orders.publish("arrives")).await.unwrap();
}

#[tokio::test]
async fn a_named_publisher_that_renews_itself_takes_its_other_partitions_along() {
    let peer = Peer::start(2).await;
    let client = peer.client().await;
    let builder = client.publisher(TOPIC).name("billing-1");
    let orders = builder.build().await.unwrap();
    for partition in 0..2 {
        let ticket = orders.send_to(partition, "before").await.unwrap();
        within(ticket).await.unwrap();
    }
    peer.script([OnPublish::Refuse(ErrorCode::InvalidBatch)]);
    let refused = orders.send_to(0, "refused").await.unwrap();
    within(refused).await.unwrap_err();
    // The new epoch fences the old one, in partition 1 too, where nothing was wrong.
    for partition in 0..2 {
        let ticket = orders.send_to(partition, "after").await.unwrap();
        within(ticket).await.unwrap();
        let values = peer.with(|world| world.values(partition));
        assert_eq!(values, ["before", "after"]);
    }
    assert_eq!(peer.with(|world| world.named_epoch), 2);

    // A newer publisher of the name, in another process: this one is done.
    let newer = peer.client().await;
    let newer = newer
        .publisher(TOPIC)
        .name("billing-1")
        .build()
        .await
        .unwrap();
    let fenced = orders.send_to(0, "old").await.unwrap();
    let error = within(fenced).await.unwrap_err();
    assert!(matches!(error, PublishError::Fenced { .. }), "{error}");
    within(newer.publish("new")).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_lost_track_of_the_sequence_gets_the_batch_under_a_new_id() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let orders = client.publisher(TOPIC).build().await.unwrap();
    within(orders.publish("one")).await.unwrap();
    peer.script([OnPublish::Refuse(ErrorCode::OutOfSequence)]);
    let receipt = within(orders.publish("two")).await.unwrap();
    assert_eq!(receipt.offset.get(), 1);
    assert_eq!(peer.with(|world| world.producers_granted), 2);
}

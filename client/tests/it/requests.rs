//! Administration and offsets.

use std::time::Duration;

use falcon_client::{Error, ErrorCode, Offset, Partition, Start, TopicOptions};

use crate::peer::{Peer, TOPIC};
use crate::within;

#[tokio::test]
async fn listings_come_page_by_page() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    let topics = within(client.list_topics()).await.unwrap();
    let names: Vec<_> = topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(within(client.list_groups()).await.unwrap(), ["x", "y"]);
}

#[tokio::test]
async fn offsets_are_committed_and_fetched() {
    let peer = Peer::start(4).await;
    let client = peer.client().await;
    let billing = client.offsets("billing");
    within(billing.commit(TOPIC, 1, Offset(5))).await.unwrap();
    let several = [
        (TOPIC, Partition(2), Offset(6)),
        (TOPIC, Partition(3), Offset(7)),
    ];
    within(billing.commit_all(&several)).await.unwrap();
    let fetched = within(billing.fetch(TOPIC)).await.unwrap();
    let offsets: Vec<_> = fetched
        .iter()
        .map(|o| (o.partition.0, o.offset.0))
        .collect();
    assert_eq!(offsets, [(1, 5), (2, 6), (3, 7)]);
    assert_eq!(peer.with(|world| world.commits.len()), 2);
    let refused = client.offsets("a/b").fetch_all().await.unwrap_err();
    assert!(matches!(refused, Error::InvalidName { .. }));
}

#[tokio::test]
async fn offsets_that_do_not_fit_into_one_answer_are_asked_for_topic_by_topic() {
    let peer = Peer::start(4).await;
    let client = peer.client().await;
    let billing = client.offsets("billing");
    within(billing.commit(TOPIC, 1, Offset(5))).await.unwrap();
    let refusals = [ErrorCode::FrameTooLarge];
    peer.with(|world| world.refuses_requests.extend(refusals));
    let fetched = within(billing.fetch_all()).await.unwrap();
    // The peer lists three topics, and says the same of each.
    assert_eq!(fetched.len(), 3);
}

#[tokio::test]
async fn a_topic_known_under_an_old_number_is_looked_up_again_once() {
    let peer = Peer::start(2).await;
    let client = peer.client().await;
    let listed = within(client.list_offsets(TOPIC, Start::Latest))
        .await
        .unwrap();
    assert_eq!(listed.len(), 2);
    peer.with(|world| world.refuses_requests.push_back(ErrorCode::UnknownTopic));
    let listed = within(client.latest_offsets(TOPIC)).await.unwrap();
    assert_eq!(listed.len(), 2);
    peer.with(|world| {
        world.topic_exists = false;
        world.refuses_requests.push_back(ErrorCode::UnknownTopic);
    });
    let error = within(client.earliest_offsets(TOPIC)).await.unwrap_err();
    assert!(matches!(error, Error::UnknownTopic { .. }), "{error}");
}

#[tokio::test]
async fn a_refusal_for_now_is_waited_out_and_a_definite_one_is_not() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    peer.with(|world| {
        let codes = [ErrorCode::TooManyRequests, ErrorCode::QueueFull];
        world.refuses_requests.extend(codes);
    });
    within(client.create_topic("new", TopicOptions::new(1)))
        .await
        .unwrap();
    peer.with(|world| world.refuses_requests.push_back(ErrorCode::TopicExists));
    let error = within(client.create_topic("new", TopicOptions::new(1)))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TopicExists));
    assert!(!error.is_retryable() && !error.may_have_happened());
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_only_where_that_is_safe() {
    let peer = Peer::start(1).await;
    let client = peer.client().await;
    peer.with(|world| world.closes_on_request = true);
    let creating = client.create_topic("new", TopicOptions::new(1));
    let error = within(creating).await.unwrap_err();
    assert!(matches!(error, Error::Lost(_)), "{error}");
    assert!(error.may_have_happened());

    let requests = peer.with(|world| world.requests);
    let listing = client.list_groups();
    let open = async {
        peer.until("it again", |world| world.requests > requests)
            .await;
        peer.with(|world| world.closes_on_request = false);
    };
    let (groups, ()) = within(async { tokio::join!(listing, open) }).await;
    assert_eq!(groups.unwrap(), ["x", "y"]);
}

#[tokio::test]
async fn a_request_without_answer_ends_and_says_whether_it_may_have_happened() {
    let peer = Peer::start(1).await;
    let builder = peer.builder().request_timeout(Duration::from_millis(100));
    let client = builder.connect().await.unwrap();
    peer.with(|world| world.is_silent = true);
    let error = within(client.delete_topic(TOPIC)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(error.is_retryable() && error.may_have_happened());
}

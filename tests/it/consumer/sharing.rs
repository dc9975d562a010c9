//! Members come, go, and survive restarts.

use std::collections::BTreeSet;

use falcon_client::{CommitError, ConsumerError, Offset, Start, TopicOptions};

use super::{billing, client, drain, holds, next, number, publish, take, with_orders, within};
use crate::broker::Broker;

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_and_who_leaves_hands_over_without_loss_or_repetition() {
    let broker = Broker::start();
    let client = with_orders(&broker, 4, 100).await;
    let mut first = billing(&client).join().await.expect("it joins");
    holds(&first, 4).await;
    let mut seen: Vec<usize> = take(&mut first, 40).await.into_iter().collect();

    let mut second = billing(&client).join().await.expect("it joins");
    within(async {
        while second.assignment().len() != 2 || first.assignment().len() != 2 {
            drain(&mut first, &mut seen).await.expect("it goes on");
            drain(&mut second, &mut seen).await.expect("it goes on");
        }
    })
    .await;
    publish(&client, "orders", 100..200).await;
    drain(&mut first, &mut seen).await.expect("it goes on");
    within(second.close()).await.expect("it was well");
    assert_eq!(within(second.next()).await, None, "it is closed");
    within(async {
        while seen.len() < 200 {
            drain(&mut first, &mut seen).await.expect("it goes on");
        }
    })
    .await;
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    within(first.close()).await.expect("it was well");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crashed_member_did_not_commit_goes_to_another() {
    let broker = Broker::start();
    let client = with_orders(&broker, 2, 20).await;
    let mut crashed = billing(&client).join().await.expect("it joins");
    let done = take(&mut crashed, 8).await;
    let abandoned = next(&mut crashed).await;
    drop(crashed);

    let mut heir = billing(&client).join().await.expect("it joins");
    let rest = take(&mut heir, 12).await;
    assert!(rest.contains(&number(&abandoned)));
    assert_eq!(&done & &rest, BTreeSet::new(), "committed ones come once");
    let refused = heir.commit(&abandoned).await;
    assert!(matches!(refused, Err(CommitError::NotDelivered { .. })));
    within(heir.close()).await.expect("it was well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_disturbs_nobody() {
    let mut broker = Broker::start();
    let client = with_orders(&broker, 4, 50).await;
    let mut consumer = billing(&client).join().await.expect("it joins");
    let mut seen = take(&mut consumer, 20).await;
    let held = consumer.assignment();
    broker.crash_and_come_back();
    publish(&client, "orders", 50..80).await;
    seen.extend(take(&mut consumer, 60).await);
    assert_eq!(seen.len(), 80, "nothing twice, nothing missing");
    assert_eq!(consumer.assignment(), held);
    within(consumer.close()).await.expect("it was well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_starts_again_fences_its_older_self() {
    let broker = Broker::start();
    let client = with_orders(&broker, 4, 10).await;
    let named = || billing(&client).instance("billing-1");
    let mut older = named().join().await.expect("it joins");
    let record = next(&mut older).await;
    let mut newer = named().join().await.expect("it joins");
    let refused = within(async {
        loop {
            match older.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("it was not closed"),
            }
        }
    })
    .await;
    assert!(matches!(refused, ConsumerError::InstanceTaken { .. }));
    assert_eq!(older.next().await, Some(Err(refused)), "it stays");
    let stale = within(older.commit(&record)).await;
    assert!(stale.is_err());
    assert_eq!(take(&mut newer, 10).await.len(), 10);
    within(newer.close()).await.expect("it was well");
}

#[tokio::test(flavor = "multi_thread")]
async fn seeking_goes_back_and_only_then_commits_do() {
    let broker = Broker::start();
    let client = with_orders(&broker, 1, 10).await;
    let mut consumer = billing(&client).join().await.expect("it joins");
    let first = next(&mut consumer).await;
    take(&mut consumer, 9).await;
    within(consumer.commit(&first))
        .await
        .expect("a lower commit is no error");
    assert_eq!(consumer.committed("orders", 0), Some(Offset(10)));

    let sought = within(consumer.seek("orders", 0, Offset(4))).await;
    sought.expect("it is held");
    let again = next(&mut consumer).await;
    assert_eq!(again.offset, Offset(4));
    within(consumer.commit_all()).await.expect("it is held");
    let stored = client
        .offsets("billing")
        .fetch("orders")
        .await
        .expect("stored");
    assert_eq!(stored[0].offset, Offset(5));
    within(consumer.seek("orders", 0, Start::Latest))
        .await
        .expect("it is held");
    publish(&client, "orders", 10..11).await;
    assert_eq!(next(&mut consumer).await.offset, Offset(10));
    let missing = consumer.pause("orders", 7);
    assert!(matches!(missing, Err(ConsumerError::NotAssigned { .. })));
    within(consumer.close()).await.expect("it was well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_appears_later_and_fits_is_read_from_its_beginning() {
    let broker = Broker::start();
    let client = client(&broker).await;
    let consumer = client.consumer("billing").topics(["payments.*"]);
    let mut consumer = consumer
        .session_timeout(super::SESSION)
        .join()
        .await
        .expect("it joins");
    for topic in ["payments.card", "other"] {
        let created = client.create_topic(topic, TopicOptions::new(2)).await;
        created.expect("it is new");
        publish(&client, topic, 0..5).await;
    }
    assert_eq!(take(&mut consumer, 5).await.len(), 5);
    assert_eq!(consumer.assignment().len(), 2);
    within(consumer.close()).await.expect("it was well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_partition_holds_up_no_other() {
    let broker = Broker::start();
    let client = with_orders(&broker, 2, 0).await;
    let small = billing(&client).buffer_bytes(1);
    let mut consumer = small.join().await.expect("it joins");
    holds(&consumer, 2).await;
    consumer.pause("orders", 0).expect("it is held");
    let publisher = client
        .publisher("orders")
        .build()
        .await
        .expect("it is there");
    for _ in 0..20 {
        for partition in [0, 1] {
            let sent = publisher.send_to(partition, vec![0; 60_000]).await;
            drop(sent.expect("there is room"));
        }
    }
    publisher.flush().await.expect("all are durable");
    for _ in 0..20 {
        assert_eq!(next(&mut consumer).await.partition.0, 1);
    }
    consumer.resume("orders", 0).expect("it is held");
    for _ in 0..20 {
        assert_eq!(next(&mut consumer).await.partition.0, 0);
    }
    within(consumer.close()).await.expect("it was well");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_consumer_reads_a_thousand_partitions() {
    let broker = Broker::start();
    let client = with_orders(&broker, 1000, 3000).await;
    let mut consumer = billing(&client).join().await.expect("it joins");
    let mut seen = BTreeSet::new();
    while seen.len() < 3000 {
        assert!(seen.insert(number(&next(&mut consumer).await)));
    }
    within(consumer.commit_all()).await.expect("they are held");
    let stored = client.offsets("billing").fetch("orders").await;
    let stored = stored
        .expect("stored")
        .into_iter()
        .map(|row| row.offset.get());
    assert_eq!(stored.sum::<u64>(), 3000);
    within(consumer.close()).await.expect("it was well");
}

//! Atomic steps: exactly once across a kill, refused as a whole, conditional appends.

use std::collections::BTreeSet;
use std::time::Duration;

use falcon_client::{
    Client, CommitError, ConsumerError, Offset, Order, Record, RunOptions, Start, StepError,
    TopicOptions,
};
use futures_util::future::join_all;

use super::{billing, next, number, with_orders, within};
use crate::broker::Broker;

async fn with_charges(client: &Client) {
    let created = client.create_topic("charges", TopicOptions::new(2)).await;
    created.expect("it is new");
}

/// Everything in `charges`.
async fn charges(client: &Client, count: usize) -> Vec<usize> {
    let records = client.subscribe("charges").from(Start::Earliest);
    let mut records = records.open().await.expect("it is there");
    let mut all = Vec::new();
    while all.len() < count {
        let record = within(records.next()).await.expect("it is open");
        all.push(number(&record.expect("a record")));
    }
    let latest = client.latest_offsets("charges").await.expect("it is there");
    let stored: u64 = latest.iter().map(|listed| listed.offset.get()).sum();
    assert_eq!(stored, count as u64, "more than expected");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_happen_exactly_once_although_the_broker_is_killed_among_them() {
    let mut broker = Broker::start();
    let client = with_orders(&broker, 4, 200).await;
    with_charges(&client).await;
    let mut consumer = billing(&client)
        .publisher_id("billing-1")
        .join()
        .await
        .expect("it joins");
    let handle = consumer.handle();
    let stopper = handle.clone();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let options = RunOptions::new().order(Order::Partition).concurrency(4);
    let counted = std::sync::Arc::clone(&done);
    let run = async move {
        let ran = consumer.run(options, move |record| {
            let (handle, done) = (handle.clone(), std::sync::Arc::clone(&counted));
            async move {
                let charge = Record::new(number(&record).to_string());
                let step = handle.step().publish("charges", charge.clone());
                let step = step.publish_to("charges", 1, charge).commit(&record);
                step.await?;
                if done.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1 == 200 {
                    handle.stop();
                }
                Ok::<(), StepError>(())
            }
        });
        let report = ran.await;
        within(consumer.close()).await.expect("it was well");
        report
    };
    let run = tokio::task::JoinSet::from_iter([run]);
    for after in [30, 90] {
        within(async {
            while done.load(std::sync::atomic::Ordering::SeqCst) < after {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        broker.crash_and_come_back();
    }
    let reports = within(run.join_all()).await;
    let report = reports
        .into_iter()
        .next()
        .expect("one run")
        .expect("it ends in order");
    assert_eq!(report.handled, 200, "{report:?}");
    drop(stopper);
    let mut all = charges(&client, 400).await;
    all.sort_unstable();
    let twice = (0..200).flat_map(|number| [number, number]);
    assert_eq!(all, twice.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_expect_an_offset_one_gets_it() {
    let broker = Broker::start();
    let client = client_with_ledger(&broker).await;
    let racers = (0..8).map(|racer| {
        let client = client.clone();
        async move {
            let (mut won, mut expected) = (BTreeSet::new(), 0);
            while expected < 20 {
                let record = Record::new(format!("{racer} {expected}"));
                let step = client.step().publish_to("ledger", 0, record);
                match step.expect_offset(Offset(expected)).await {
                    Ok(receipt) => {
                        assert_eq!(receipt.records[0].offset, Offset(expected));
                        won.insert(expected);
                        expected += 1;
                    }
                    Err(StepError::OffsetMismatch { next, .. }) => {
                        assert!(next.get() > expected);
                        expected = next.get();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            won
        }
    });
    let won = within(join_all(racers)).await;
    let total: usize = won.iter().map(BTreeSet::len).sum();
    let offsets: BTreeSet<u64> = won.into_iter().flatten().collect();
    let latest = client.latest_offsets("ledger").await.expect("it is there");
    assert_eq!(latest[0].offset.get(), total as u64);
    assert_eq!(offsets.len(), total, "an offset was won twice");
}

async fn client_with_ledger(broker: &Broker) -> Client {
    let client = super::client(broker).await;
    let created = client.create_topic("ledger", TopicOptions::new(1)).await;
    created.expect("a fresh broker");
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_commit_refuses_the_whole_step_and_costs_the_next_nothing() {
    let broker = Broker::start();
    let client = with_orders(&broker, 1, 3).await;
    with_charges(&client).await;
    let mut older = billing(&client)
        .instance("one")
        .join()
        .await
        .expect("it joins");
    let record = next(&mut older).await;
    let mut newer = billing(&client)
        .instance("one")
        .join()
        .await
        .expect("it joins");
    assert_eq!(next(&mut newer).await.offset, record.offset);
    let step = older.step().publish("charges", "1").commit(&record);
    let refused = within(step.send()).await;
    assert!(
        matches!(
            refused,
            Err(StepError::Commit(CommitError::StaleOwner { .. }))
        ),
        "{refused:?}"
    );
    let foreign = within(newer.step().publish("charges", "1").commit(&record).send()).await;
    assert!(
        matches!(
            foreign,
            Err(StepError::Commit(CommitError::NotDelivered { .. }))
        ),
        "{foreign:?}"
    );
    within(client.step().publish("charges", "2").send())
        .await
        .expect("it happens");
    assert_eq!(charges(&client, 1).await, [2]);
    within(newer.close()).await.expect("it was well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_id_fences_its_older_self() {
    let broker = Broker::start();
    let client = with_orders(&broker, 1, 3).await;
    with_charges(&client).await;
    let named = || billing(&client).publisher_id("billing-1");
    let mut older = named().join().await.expect("it joins");
    within(older.step().publish("charges", "1").send())
        .await
        .expect("it happens");
    let newer = named().join().await.expect("it joins");
    let fenced = within(older.step().publish("charges", "2").send()).await;
    let is_uncertain = false;
    assert_eq!(fenced, Err(StepError::Fenced { is_uncertain }));
    let told = within(older.next()).await;
    assert_eq!(told, Some(Err(ConsumerError::Fenced)));
    within(newer.step().publish("charges", "3").send())
        .await
        .expect("it happens");
    assert_eq!(charges(&client, 2).await.len(), 2);
}

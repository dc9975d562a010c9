//! Handlers: order, retries, hanging, panics, graceful ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use falcon_client::{
    AutoCommit, ConsumerEvent, Offset, OnError, Order, Partition, RetryPolicy, RunEnd, RunOptions,
};
use tokio::sync::Notify;

use super::{billing, next, number, with_orders, within};
use crate::broker::Broker;

fn handled() -> AutoCommit {
    AutoCommit::Handled {
        every: Duration::from_millis(20),
    }
}

/// Numbers seen by handlers, for their checks.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<usize>>>);

impl Seen {
    /// How many there are now.
    fn add(&self, number: usize) -> usize {
        let mut seen = self.0.lock().expect("no handler panics with it");
        seen.push(number);
        seen.len()
    }

    fn all(&self) -> Vec<usize> {
        self.0.lock().expect("no handler panics with it").clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_retries_catches_panics_and_commits_what_was_handled() {
    let broker = Broker::start();
    let client = with_orders(&broker, 4, 100).await;
    let consumer = billing(&client).auto_commit(handled());
    let mut consumer = consumer.join().await.expect("it joins");
    let handle = consumer.handle();
    let (seen, tries) = (Seen::default(), Arc::new(Mutex::new(BTreeMap::new())));
    let retry = RetryPolicy::new(Duration::from_millis(5))
        .attempts(3)
        .then_skip();
    let options = RunOptions::new().on_error(OnError::Retry(retry));
    let run = consumer.run(options, |record| {
        let (seen, tries, handle) = (seen.clone(), Arc::clone(&tries), handle.clone());
        async move {
            let number = number(&record);
            let attempt = {
                let mut tries = tries.lock().expect("no panic while it is locked");
                let attempt = tries.entry(number).or_insert(0);
                *attempt += 1;
                *attempt
            };
            assert!(number != 13 || attempt > 1, "an unlucky number");
            if number == 7 || (number % 10 == 5 && attempt < 3) {
                return Err("not now");
            }
            if seen.add(number) == 99 {
                handle.stop();
            }
            Ok(())
        }
    });
    let report = within(run).await.expect("it ends in order");
    assert_eq!(report.end, RunEnd::Stopped);
    assert_eq!((report.handled, report.failed), (99, 1), "{report:?}");
    assert_eq!((report.skipped, report.stale), (1, 0), "{report:?}");
    // 10 numbers that end with a 5 twice each, the panic once, number 7 twice.
    assert_eq!(report.retried, 23, "{report:?}");
    let all: BTreeSet<usize> = seen.all().into_iter().collect();
    assert_eq!(all.len(), 99);
    let committed: u64 = report
        .committed
        .iter()
        .map(|(_, offset)| offset.get())
        .sum();
    assert_eq!(committed, 100, "{report:?}");
    within(consumer.close()).await.expect("it was well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_hangs_holds_up_its_key_alone_and_nothing_is_committed_over_it() {
    let broker = Broker::start();
    let client = with_orders(&broker, 2, 60).await;
    let consumer = billing(&client).auto_commit(handled());
    let mut consumer = consumer.join().await.expect("it joins");
    let handle = consumer.handle();
    let (seen, release) = (Seen::default(), Arc::new(Notify::new()));
    let options = RunOptions::new().concurrency(4);
    let run = consumer.run(options, |record| {
        let (seen, release, handle) = (seen.clone(), Arc::clone(&release), handle.clone());
        async move {
            if number(&record) == 3 {
                release.notified().await;
            }
            match seen.add(number(&record)) {
                59 => release.notify_one(),
                60 => handle.stop(),
                _ => {}
            }
            Ok::<(), &str>(())
        }
    });
    let report = within(run).await.expect("it ends in order");
    assert_eq!(report.handled, 60);
    assert_eq!(seen.all().last(), Some(&3), "the others did not wait");
    let committed: u64 = report
        .committed
        .iter()
        .map(|(_, offset)| offset.get())
        .sum();
    assert_eq!(committed, 60);
    within(consumer.close()).await.expect("it was well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_stops_the_run_and_its_record_comes_again() {
    let broker = Broker::start();
    let client = with_orders(&broker, 1, 10).await;
    let consumer = billing(&client).auto_commit(handled());
    let mut consumer = consumer.join().await.expect("it joins");
    let options = RunOptions::new()
        .order(Order::Partition)
        .on_error(OnError::Stop);
    let run = consumer.run(options, |record| async move {
        match number(&record) {
            4 => Err("it cannot be"),
            _ => Ok(()),
        }
    });
    let report = within(run).await.expect("it ends in order");
    let RunEnd::HandlerFailed { offset, error, .. } = report.end else {
        panic!("{report:?}");
    };
    assert_eq!((offset.get(), error.as_str()), (4, "it cannot be"));
    assert_eq!(report.committed[0].1, offset);
    assert_eq!(number(&next(&mut consumer).await), 4);
    within(consumer.close()).await.expect("it was well");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_for_too_long_gives_up_and_is_told_why() {
    let broker = Broker::start();
    let client = with_orders(&broker, 1, 5).await;
    let slow = billing(&client).max_poll_interval(Duration::from_millis(300));
    let mut consumer = slow.join().await.expect("it joins");
    let mut events = consumer.events();
    let record = next(&mut consumer).await;
    within(async {
        while !matches!(events.next().await, Some(ConsumerEvent::PollTooSlow { .. })) {}
    })
    .await;
    let told = within(consumer.next()).await.expect("it is open");
    let error = told.expect_err("it was too slow");
    assert!(
        error.to_string().contains("orders") && !error.is_final(),
        "{error}"
    );
    let again = next(&mut consumer).await;
    assert_eq!(again.offset, record.offset, "it was not committed");
    within(consumer.close()).await.expect("it was well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_comes_too_late_does_not_end_the_run() {
    let broker = Broker::start();
    let client = with_orders(&broker, 1, 10).await;
    let mut consumer = billing(&client).join().await.expect("it joins");
    let (handle, seen) = (consumer.handle(), Seen::default());
    // A failure would end it; a partition that was taken away is none.
    let options = RunOptions::new()
        .order(Order::Partition)
        .on_error(OnError::Stop);
    let run = consumer.run(options, |record| {
        let (client, handle, seen) = (client.clone(), handle.clone(), seen.clone());
        async move {
            let number = number(&record);
            if seen.add(number) == 5 {
                let start = [("orders", Partition(0), Offset(2))];
                let reset = client.reset_offsets("billing", &start, true).await;
                reset.map_err(|error| error.to_string())?;
            }
            let step = handle.step().commit(&record).send().await;
            step.map_err(|error| error.to_string())?;
            if number == 9 {
                handle.stop();
            }
            Ok::<(), String>(())
        }
    });
    let report = within(run).await.expect("it ends in order");
    assert_eq!(report.end, RunEnd::Stopped, "{report}");
    assert_eq!((report.failed, report.retried), (0, 0), "{report}");
    assert!(report.stale > 0, "{report}");
    assert_eq!(seen.all()[..5], [0, 1, 2, 3, 4]);
    assert!(
        seen.all().ends_with(&[2, 3, 4, 5, 6, 7, 8, 9]),
        "{:?}",
        seen.all()
    );
    within(consumer.close()).await.expect("it was well");
}

//! Joining, working, leaving.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use falcon_client::{
    AutoCommit, Client, CommitError, Consumer, ConsumerError, ConsumerEvent, ConsumerEvents,
    ConsumerHandle, Delivered, Order, Record, RunOptions, Start, StepError, TopicPartition,
};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Given, MemberOptions, Mode, Notes, OUTPUT, PATTERN, group_name};
use crate::error::CrashError;
use crate::history::{GroupPlace, Outcome, now_ns};

const RETRY: Duration = Duration::from_millis(50);
/// Between two commits of a member that commits by itself: so many records, or so long.
const COMMIT_RECORDS: u32 = 20;
const COMMIT_EVERY: Duration = Duration::from_millis(100);
/// Handlers at a time.
const CONCURRENCY: usize = 4;

type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// Is a member until it is told to leave, or another one takes its name.
pub fn run(options: &MemberOptions) -> Result<(), CrashError> {
    let notes = Arc::new(Notes::create(options)?);
    let leave = CancellationToken::new();
    let (heard, told) = (Arc::clone(&notes), leave.clone());
    let listener = thread::Builder::new().name("commands".into());
    listener
        .spawn(move || listen(&heard, &told))
        .map_err(|error| CrashError::Program(format!("no thread: {error}")))?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CrashError::Program(format!("no runtime: {error}")))?;
    let ended = runtime.block_on(live(options, &notes, &leave));
    let now = now_ns();
    match ended {
        Ok(()) => println!("left {now}"),
        Err(trouble) => match trouble.downcast_ref() {
            Some(ConsumerError::InstanceTaken { .. }) => println!("taken {now}"),
            _ => println!("ended {now} {trouble}"),
        },
    }
    runtime.shutdown_background();
    Ok(())
}

/// Takes commands until there is nobody to give them.
fn listen(notes: &Notes, leave: &CancellationToken) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("stall", ms)) => {
                let length = Duration::from_millis(ms.parse().unwrap_or_default());
                let length = u64::try_from(length.as_nanos()).unwrap_or_default();
                notes
                    .stall_until_ns
                    .store(now_ns() + length, Ordering::Relaxed);
            }
            _ => leave.cancel(),
        }
    }
    leave.cancel();
}

async fn live(
    options: &MemberOptions,
    notes: &Arc<Notes>,
    leave: &CancellationToken,
) -> Result<(), Trouble> {
    let Some(joined) = leave.run_until_cancelled(join(options)).await else {
        return Ok(());
    };
    let (client, mut consumer) = joined?;
    println!("joined {}", now_ns());
    let events = consumer.events();
    let watching = TaskTracker::new();
    watching.spawn(watch(Arc::clone(notes), events));
    watching.close();
    let worked = match options.mode {
        Mode::Next => take(&mut consumer, (notes, options.hasty), leave).await,
        Mode::Run => handle(&mut consumer, notes, leave).await,
        Mode::Step => step(&mut consumer, notes, leave).await,
    };
    // Also after an error: what it holds is known to be free then.
    // What had ended it before is in the histories.
    consumer.close().await.ok();
    drop(consumer);
    client.shutdown().await;
    watching.wait().await;
    worked
}

/// Tries as long as there is no broker.
async fn join(options: &MemberOptions) -> Result<(Client, Consumer), Trouble> {
    let client = loop {
        match Client::connect(&options.address).await {
            Ok(client) => break client,
            Err(_) => sleep(RETRY).await,
        }
    };
    let auto_commit = match options.mode {
        Mode::Run => AutoCommit::Handled {
            every: COMMIT_EVERY,
        },
        Mode::Next | Mode::Step => AutoCommit::Off,
    };
    let mut builder = client
        .consumer(group_name(options.group))
        .topics([PATTERN])
        .session_timeout(Duration::from_millis(options.session_ms))
        .start(Start::Earliest)
        .auto_commit(auto_commit);
    if let Some(instance) = &options.instance {
        builder = builder.instance(instance);
    }
    let consumer = builder.join().await?;
    Ok((client, consumer))
}

fn place(notes: &Notes, partition: &TopicPartition) -> GroupPlace {
    notes.place(&partition.topic, partition.partition.0)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a list that grows, of which few concern it"
)]
async fn watch(notes: Arc<Notes>, mut events: ConsumerEvents) {
    while let Some(event) = events.next().await {
        match event {
            ConsumerEvent::Assigned {
                partition, epoch, ..
            } => notes.own(place(&notes, &partition), epoch.0),
            ConsumerEvent::Lost { partition, epoch } => {
                notes.disown(place(&notes, &partition), epoch.0);
            }
            event => {
                let is_wrong = matches!(
                    event,
                    ConsumerEvent::Damaged { .. }
                        | ConsumerEvent::Skipped { .. }
                        | ConsumerEvent::PollTooSlow { .. }
                );
                if is_wrong {
                    println!("told {} {event:?}", now_ns());
                }
            }
        }
    }
}

fn given(notes: &Notes, record: &Delivered) -> Given {
    let epoch = record.epoch().map_or(0, |epoch| epoch.0);
    notes.given(record, epoch)
}

/// Records one by one, and commits now and then.
async fn take(
    consumer: &mut Consumer,
    (notes, is_hasty): (&Notes, bool),
    leave: &CancellationToken,
) -> Result<(), Trouble> {
    let mut done: BTreeMap<GroupPlace, (Given, Delivered)> = BTreeMap::new();
    let (mut count, mut due) = (0, Instant::now() + COMMIT_EVERY);
    loop {
        // CANCEL SAFETY: a record not returned stays.
        let next = leave.run_until_cancelled(timeout_at(due, consumer.next()));
        match next.await {
            Some(Ok(Some(Ok(record)))) => {
                let given = given(notes, &record);
                if is_hasty {
                    commit(consumer, notes, (given, &record)).await?;
                }
                notes.handle(given).await;
                done.insert(given.place, (given, record));
                count += 1;
            }
            Some(Ok(Some(Err(error)))) if error.is_final() => return Err(error.into()),
            // No connection, for now.
            Some(Ok(Some(Err(error)))) => eprintln!("member {}: {error}", notes.number),
            Some(Ok(None)) => return Err("the stream ended".into()),
            None | Some(Err(_)) => {}
        }
        if count < COMMIT_RECORDS && Instant::now() < due && !leave.is_cancelled() {
            continue;
        }
        for (given, record) in std::mem::take(&mut done).into_values() {
            commit(consumer, notes, (given, &record)).await?;
        }
        if leave.is_cancelled() {
            return Ok(());
        }
        (count, due) = (0, Instant::now() + COMMIT_EVERY);
    }
}

async fn commit(
    consumer: &Consumer,
    notes: &Notes,
    (given, record): (Given, &Delivered),
) -> Result<(), Trouble> {
    let invoked_ns = now_ns();
    let outcome = match consumer.commit(record).await {
        Ok(()) => Outcome::Ok,
        Err(error @ CommitError::NotDelivered { .. }) => return Err(error.into()),
        Err(CommitError::StaleOwner { .. }) => Outcome::Failed,
        // Its end comes with the next record.
        Err(_) => Outcome::Unknown,
    };
    notes.committed(given, invoked_ns, outcome);
    Ok(())
}

/// Stops a run when the member is to leave.
async fn stop_on(leave: &CancellationToken, handle: ConsumerHandle) -> Infallible {
    leave.cancelled().await;
    handle.stop();
    std::future::pending().await
}

/// What a run comes to, when it is told to stop on `leave`.
async fn until<T>(run: impl Future<Output = T>, stop: impl Future<Output = Infallible>) -> T {
    // CANCEL SAFETY: `stop` only waits, and never ends.
    tokio::select! {
        ended = run => ended,
        never = stop => match never {},
    }
}

fn how() -> RunOptions {
    RunOptions::new()
        .concurrency(CONCURRENCY)
        .order(Order::Partition)
}

/// A handler; the client commits.
async fn handle(
    consumer: &mut Consumer,
    notes: &Arc<Notes>,
    leave: &CancellationToken,
) -> Result<(), Trouble> {
    let stop = stop_on(leave, consumer.handle());
    let notes = Arc::clone(notes);
    let handler = move |record: Delivered| {
        let notes = Arc::clone(&notes);
        async move {
            let given = given(&notes, &record);
            notes.handle(given).await;
            Ok::<(), Trouble>(())
        }
    };
    until(consumer.run(how(), handler), stop).await?;
    Ok(())
}

/// A handler that publishes what it handled, and commits, in one step.
async fn step(
    consumer: &mut Consumer,
    notes: &Arc<Notes>,
    leave: &CancellationToken,
) -> Result<(), Trouble> {
    let stop = stop_on(leave, consumer.handle());
    let (notes, steps) = (Arc::clone(notes), consumer.handle());
    let handler = move |record: Delivered| {
        let (notes, steps) = (Arc::clone(&notes), steps.clone());
        async move {
            let given = given(&notes, &record);
            notes.handle(given).await;
            let mut output = Record::new(record.value.clone().unwrap_or_default());
            if let Some(key) = record.key.clone() {
                output = output.key(key);
            }
            let invoked_ns = now_ns();
            let outcome = loop {
                let step = steps.step().publish(OUTPUT, output.clone());
                match step.commit(&record).send().await {
                    Ok(_) => break Outcome::Ok,
                    Err(StepError::Commit(CommitError::StaleOwner { .. })) => {
                        break Outcome::Failed;
                    }
                    Err(error) if error.is_retryable() && !error.may_have_happened() => {
                        eprintln!("member {}: {error}", notes.number);
                        sleep(RETRY).await;
                    }
                    // Whether it happened is known to who reads the committed offset: a successor.
                    Err(error) => {
                        println!("ended {} {error}", now_ns());
                        std::process::exit(0);
                    }
                }
            };
            notes.committed(given, invoked_ns, outcome);
            Ok::<(), Trouble>(())
        }
    };
    until(consumer.run(how(), handler), stop).await?;
    Ok(())
}

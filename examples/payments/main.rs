//! A payment pipeline: flights are booked as orders, each order becomes a charge, each charge an entry
//! in the ledger of its account.
//!
//! ```text
//! FILE --intake--> payments.orders --charge--> payments.charges --book--> payments.ledger
//! ```
//!
//! Every arrow is an atomic step: what is published and how far the input was read become durable
//! together. So each part, and the broker, may be killed at any moment and started again: no order is
//! charged twice, none is missing, every balance is exact.
//!
//! ```text
//! falcon serve --data-dir DATA &
//! cargo run --example payments                       # all parts in one process, on a day of flights
//! cargo run --example payments -- charge &           # or each part as often as you like
//! cargo run --example payments -- book &
//! cargo run --example payments -- intake FILE
//! cargo run --example payments -- check FILE         # balances from the file against the ledger
//! ```

mod audit;
mod book;
mod charge;
mod intake;
mod model;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use falcon_client::{Client, Consumer, ConsumerHandle, Start, TopicOptions};
use tokio::task::JoinSet;

/// What can go wrong, for people.
type Failure = Box<dyn Error + Send + Sync>;

const ORDERS: &str = "payments.orders";
const CHARGES: &str = "payments.charges";
const LEDGER: &str = "payments.ledger";
const INTAKE: &str = "payments.intake";
const PARTITIONS: u32 = 8;
const DAY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/data/flights-2013-01-01.jsonl"
);
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Parser)]
#[command(about = "A payment pipeline that may be killed anywhere")]
struct Arguments {
    /// Address of the broker.
    #[arg(long, global = true, default_value = "falcon://127.0.0.1:7420")]
    address: String,
    /// Name of this worker: it comes back to its partitions without waiting for its session to end.
    #[arg(long, global = true)]
    instance: Option<String>,
    /// How long a worker may be silent before others take its partitions, milliseconds.
    #[arg(long, global = true, default_value_t = 3_000)]
    session_ms: u64,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Publishes the flights of a file as orders, from where it was left; the file must be the same.
    Intake {
        /// One flight a line, JSON.
        file: PathBuf,
    },
    /// Makes a charge of each order, until it is interrupted.
    Charge,
    /// Enters each charge into the ledger, until it is interrupted.
    Book,
    /// Compares the ledger with the file.
    Check {
        /// The file of the orders.
        file: PathBuf,
    },
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let client = patiently(|| open(&arguments.address)).await?;
    match &arguments.part {
        Some(Part::Intake { file }) => intake::run(&client, file).await,
        Some(Part::Charge) => {
            charge::run(join(&client, "charging", ORDERS, &arguments).await?).await
        }
        Some(Part::Book) => {
            let consumer = join(&client, "booking", CHARGES, &arguments).await?;
            book::run(&client, consumer).await
        }
        Some(Part::Check { file }) => audit::run(&client, file).await,
        None => all(&client, DAY.as_ref(), &arguments).await,
    }
}

/// A worker that starts while its broker is away waits for it.
async fn patiently<T>(attempt: impl AsyncFn() -> Result<T, Failure>) -> Result<T, Failure> {
    const TRIES: u32 = 100;
    for _ in 0..TRIES {
        if let Ok(done) = attempt().await {
            return Ok(done);
        }
        tokio::time::sleep(PAUSE).await;
    }
    attempt().await
}

/// Connects, and makes the topics that are not there.
async fn open(address: &str) -> Result<Client, Failure> {
    let client = Client::connect(address).await?;
    for topic in [ORDERS, CHARGES, LEDGER] {
        let options = TopicOptions::new(PARTITIONS);
        client.ensure_topic(topic, options).await?;
    }
    client.ensure_topic(INTAKE, TopicOptions::new(1)).await?;
    Ok(client)
}

async fn join(
    client: &Client,
    group: &str,
    topic: &str,
    arguments: &Arguments,
) -> Result<Consumer, Failure> {
    let join = async || {
        let mut consumer = client
            .consumer(group)
            .topics([topic])
            .start(Start::Earliest)
            .session_timeout(Duration::from_millis(arguments.session_ms));
        if let Some(instance) = &arguments.instance {
            consumer = consumer.instance(instance);
        }
        Ok(consumer.join().await?)
    };
    patiently(join).await
}

/// Ends a worker in order when the process is interrupted.
fn stop_on_interrupt(handle: ConsumerHandle, tasks: &mut JoinSet<()>) {
    tasks.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            handle.stop();
        }
    });
}

/// All parts beside each other, until everything is booked; then the audit.
async fn all(client: &Client, file: &Path, arguments: &Arguments) -> Result<(), Failure> {
    let charging = join(client, "charging", ORDERS, arguments).await?;
    let booking = join(client, "booking", CHARGES, arguments).await?;
    let stops = [charging.handle(), booking.handle()];
    let mut workers = JoinSet::new();
    workers.spawn(charge::run(charging));
    let ledger = client.clone();
    workers.spawn(async move { book::run(&ledger, booking).await });
    intake::run(client, file).await?;
    audit::wait_until_booked(client).await?;
    stops.iter().for_each(ConsumerHandle::stop);
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    audit::run(client, file).await
}

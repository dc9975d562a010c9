//! Publishers that never give up, and their exact account.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use falcon_client::{Client, Partition, PublishError, Publisher, Receipt, Record, Ticket};
use fastrand::Rng;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{PARTITIONS, TOPIC};

/// Longer than any broker is away.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between attempts to reach a broker that is away.
const RETRY: Duration = Duration::from_millis(20);
/// Clients with a connection each; two publishers share one, the second has a name.
const CLIENTS: u32 = 4;
/// Small, so that several are under way in each partition.
const BATCH_BYTES: usize = 512;
const WINDOW_BYTES: usize = 16 << 10;
/// Records whose ends are waited for later.
const IN_FLIGHT_MAX: usize = 2000;
/// Records sent to a partition before another one has its turn.
const RUN_MAX: u32 = 40;

/// How a record's publish ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Acknowledged at this offset.
    Acked(u64),
    /// It may be there.
    Unknown,
    /// It was said not to be there.
    Refused,
}

/// What one publisher sent, and was told.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Ends by partition and by position in the order sent.
    pub(super) ends: Vec<Vec<End>>,
    /// Records answered as duplicates.
    pub(super) duplicates_answered: u64,
    /// What must not happen, in words.
    pub(super) said: Vec<String>,
}

impl Account {
    fn new() -> Self {
        Self {
            ends: (0..PARTITIONS).map(|_| Vec::new()).collect(),
            ..Self::default()
        }
    }

    /// The position of the next record of a partition.
    fn begin(&mut self, partition: u32) -> u64 {
        let Some(ends) = self.ends.get_mut(partition as usize) else {
            return 0;
        };
        ends.push(End::Unknown);
        ends.len() as u64 - 1
    }

    fn end(&mut self, sent: (u32, u64), ended: &Result<Receipt, PublishError>) {
        let (partition, position) = sent;
        let end = match ended {
            Ok(receipt) => {
                self.duplicates_answered += u64::from(receipt.is_duplicate);
                if receipt.partition != Partition(partition) {
                    let said = format!("{sent:?} was sent, the receipt is {receipt:?}");
                    self.said.push(said);
                }
                End::Acked(receipt.offset.get())
            }
            Err(error) => {
                self.said.push(format!("{sent:?} ended with: {error}"));
                if error.may_have_happened() {
                    End::Unknown
                } else {
                    End::Refused
                }
            }
        };
        let ends = self.ends.get_mut(partition as usize);
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        if let Some(to) = ends.and_then(|ends| ends.get_mut(position)) {
            *to = end;
        }
    }
}

/// What a record carries: publisher and position in its partition.
pub(super) fn value(publisher: u32, position: u64) -> Vec<u8> {
    [&publisher.to_le_bytes()[..], &position.to_le_bytes()[..]].concat()
}

/// Publisher and position, when these are exactly such bytes.
pub(super) fn read_value(bytes: &[u8]) -> Option<(u32, u64)> {
    let (publisher, rest) = bytes.split_first_chunk()?;
    let position = u64::from_le_bytes(rest.try_into().ok()?);
    Some((u32::from_le_bytes(*publisher), position))
}

/// Publishers at work.
#[derive(Debug)]
pub(super) struct Publishers {
    tasks: TaskTracker,
    stop: CancellationToken,
    accounts: Arc<Mutex<BTreeMap<u32, Account>>>,
}

impl Publishers {
    /// Starts all of them.
    pub(super) fn start(runtime: &Handle, port: u16) -> Self {
        let publishers = Self {
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            accounts: Arc::default(),
        };
        for number in 0..CLIENTS {
            let (stop, tasks) = (publishers.stop.clone(), publishers.tasks.clone());
            let accounts = Arc::clone(&publishers.accounts);
            let work = async move {
                let Some(client) = connect(port, &stop).await else {
                    return;
                };
                for (number, is_named) in [(2 * number, false), (2 * number + 1, true)] {
                    let (client, stop) = (client.clone(), stop.clone());
                    let accounts = Arc::clone(&accounts);
                    tasks.spawn(async move {
                        let name = is_named.then(|| format!("publisher-{number}"));
                        let account = run(&client, number, name, &stop).await;
                        let mut accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
                        accounts.insert(number, account);
                    });
                }
            };
            publishers.tasks.spawn_on(work, runtime);
        }
        publishers
    }

    /// Lets them end; their accounts by number.
    pub(super) async fn finish(self) -> Vec<Account> {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |number| accounts.remove(&number).unwrap_or_default();
        (0..2 * CLIENTS).map(take).collect()
    }
}

async fn connect(port: u16, stop: &CancellationToken) -> Option<Client> {
    let address = format!("falcon://127.0.0.1:{port}");
    while !stop.is_cancelled() {
        if let Ok(client) = Client::connect(&address).await {
            return Some(client);
        }
        sleep(RETRY).await;
    }
    None
}

async fn build(client: &Client, name: Option<&str>, stop: &CancellationToken) -> Option<Publisher> {
    while !stop.is_cancelled() {
        let builder = client
            .publisher(TOPIC)
            .batch_bytes(BATCH_BYTES)
            .window_bytes(WINDOW_BYTES)
            .delivery_timeout(DELIVERY_TIMEOUT);
        let built = match name {
            Some(name) => builder.name(name).build().await,
            None => builder.build().await,
        };
        if let Ok(publisher) = built {
            return Some(publisher);
        }
        sleep(RETRY).await;
    }
    None
}

/// Publishes until told to stop, then waits for every end.
async fn run(
    client: &Client,
    number: u32,
    name: Option<String>,
    stop: &CancellationToken,
) -> Account {
    let mut account = Account::new();
    let Some(publisher) = build(client, name.as_deref(), stop).await else {
        return account;
    };
    let mut random = Rng::with_seed(u64::from(number));
    let mut in_flight: VecDeque<((u32, u64), Ticket)> = VecDeque::new();
    let (mut partition, mut run) = (0, 0);
    while !stop.is_cancelled() {
        if run == 0 {
            (partition, run) = (random.u32(0..PARTITIONS), random.u32(1..=RUN_MAX));
        }
        run -= 1;
        let sent = (partition, account.begin(partition));
        let record = Record::new(value(number, sent.1));
        match publisher.send_to(partition, record).await {
            Ok(ticket) => in_flight.push_back((sent, ticket)),
            Err(error) => {
                // One that is refused before it is sent ends the publisher.
                account.end(sent, &Err(error));
                break;
            }
        }
        while in_flight.len() > IN_FLIGHT_MAX {
            settle(&mut account, &mut in_flight).await;
        }
    }
    while !in_flight.is_empty() {
        settle(&mut account, &mut in_flight).await;
    }
    account
}

async fn settle(account: &mut Account, in_flight: &mut VecDeque<((u32, u64), Ticket)>) {
    if let Some((sent, ticket)) = in_flight.pop_front() {
        let ended = ticket.await;
        account.end(sent, &ended);
    }
}

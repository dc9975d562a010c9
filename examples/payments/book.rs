//! From `payments.charges` to `payments.ledger`: the part with state.
//!
//! Partition N of the charges is booked in partition N of the ledger. The balances of a partition are in
//! the ledger itself, and in memory as of some offset of it. An entry is appended only if the ledger
//! still ends there; if not, somebody else has booked meanwhile, and the balances are read on from the
//! ledger. So this worker need not know when it gains or loses a partition.

use std::collections::HashMap;
use std::sync::Arc;

use falcon_client::{
    Client, Consumer, Delivered, Offset, Order as InOrder, Record, RunOptions, Start, StepError,
};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::model::{Charge, Entry, read, write};
use crate::{Failure, LEDGER, PARTITIONS, stop_on_interrupt};

/// Balances of one partition as of an offset of the ledger.
#[derive(Debug, Default)]
struct Balances {
    next: Offset,
    /// Balance and number of entries by account.
    accounts: HashMap<String, (i64, u64)>,
}

pub(crate) async fn run(client: &Client, mut consumer: Consumer) -> Result<(), Failure> {
    let handle = Arc::new(consumer.handle());
    let mut tasks = JoinSet::new();
    stop_on_interrupt(consumer.handle(), &mut tasks);
    let state: Arc<Vec<Mutex<Balances>>> =
        Arc::new((0..PARTITIONS).map(|_| Mutex::default()).collect());
    let client = client.clone();
    let options = RunOptions::new().concurrency(8).order(InOrder::Partition);
    let report = consumer
        .run(options, move |record| {
            let (client, handle, state) = (client.clone(), Arc::clone(&handle), Arc::clone(&state));
            async move {
                let charge: Charge = read(record.value.as_deref())?;
                let partition = usize::try_from(record.partition.0)?;
                let balances = state
                    .get(partition)
                    .ok_or("a partition more than there are")?;
                let mut balances = balances.lock().await;
                loop {
                    let (entry, expected) = (balances.entry(&charge), balances.next);
                    let out = Record::new(write(&entry)?).key(charge.account.clone());
                    let step = handle.step().publish_to(LEDGER, record.partition.0, out);
                    match step.expect_offset(expected).commit(&record).send().await {
                        Ok(_) => {
                            balances.apply(&entry, expected);
                            return Ok::<(), Failure>(());
                        }
                        Err(StepError::OffsetMismatch { next, .. }) => {
                            balances.read_on(&client, record.partition.0, next).await?;
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        })
        .await?;
    println!("booking ended: {report}");
    consumer.close().await?;
    Ok(())
}

impl Balances {
    /// The entry of a charge.
    fn entry(&self, charge: &Charge) -> Entry {
        let (balance, number) = self
            .accounts
            .get(&charge.account)
            .copied()
            .unwrap_or_default();
        Entry {
            order: charge.order,
            account: charge.account.clone(),
            cents: charge.cents,
            balance: balance + charge.cents,
            number: number + 1,
        }
    }

    /// The entry is in the ledger.
    fn apply(&mut self, entry: &Entry, offset: Offset) {
        self.accounts
            .insert(entry.account.clone(), (entry.balance, entry.number));
        self.next = offset.advance(1);
    }

    /// Reads the ledger on, up to `end`.
    async fn read_on(
        &mut self,
        client: &Client,
        partition: u32,
        end: Offset,
    ) -> Result<(), Failure> {
        let from = Start::Offset(self.next);
        let mut entries = client
            .subscribe(LEDGER)
            .partition_from(partition, from)
            .open()
            .await?;
        while self.next < end {
            let record: Delivered = entries.next().await.ok_or("the ledger ended")??;
            let entry: Entry = read(record.value.as_deref())?;
            self.apply(&entry, record.offset);
        }
        entries.close().await;
        Ok(())
    }
}

//! The ledger against the file.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use falcon_client::{Client, Delivered, Start};

use crate::model::{Charge, Entry, Order, read};
use crate::{CHARGES, Failure, LEDGER, ORDERS, PAUSE};

/// Fails when anything is missing, twice, or not exact.
pub(crate) async fn run(client: &Client, file: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file)?;
    let mut owed: HashMap<String, (i64, u64)> = HashMap::new();
    let mut count = 0;
    for (id, line) in (0..).zip(text.lines()) {
        let charge = Order::of(id, line)?.charge();
        let account = owed.entry(charge.account).or_default();
        *account = (account.0 + charge.cents, account.1 + 1);
        count += 1;
    }
    let mut wrong = Vec::new();
    let mut seen = Seen::new("orders", count);
    for record in all(client, ORDERS).await? {
        seen.take(read::<Order>(record.value.as_deref())?.id, &mut wrong);
    }
    seen.finish(&mut wrong);
    let mut seen = Seen::new("charges", count);
    for record in all(client, CHARGES).await? {
        seen.take(read::<Charge>(record.value.as_deref())?.order, &mut wrong);
    }
    seen.finish(&mut wrong);
    let mut seen = Seen::new("entries", count);
    let mut booked: HashMap<String, (i64, u64)> = HashMap::new();
    for record in all(client, LEDGER).await? {
        let entry: Entry = read(record.value.as_deref())?;
        seen.take(entry.order, &mut wrong);
        let account = booked.entry(entry.account.clone()).or_default();
        *account = (account.0 + entry.cents, account.1 + 1);
        if *account != (entry.balance, entry.number) {
            wrong.push(format!(
                "{entry:?} does not follow from the entries before it"
            ));
        }
    }
    seen.finish(&mut wrong);
    for (account, expected) in &owed {
        let found = booked.get(account).copied().unwrap_or_default();
        if found != *expected {
            wrong.push(format!("{account} owes {found:?}, not {expected:?}"));
        }
    }
    for problem in wrong.iter().take(20) {
        println!("WRONG: {problem}");
    }
    let total: i64 = booked.values().map(|(balance, _)| balance).sum();
    println!(
        "{} accounts, {count} orders, {total} cents: {} problems",
        booked.len(),
        wrong.len()
    );
    if wrong.is_empty() {
        Ok(())
    } else {
        Err("the books are wrong".into())
    }
}

/// Each order once.
struct Seen {
    what: &'static str,
    orders: HashSet<u64>,
    count: u64,
}

impl Seen {
    fn new(what: &'static str, count: u64) -> Self {
        let orders = HashSet::new();
        Self {
            what,
            orders,
            count,
        }
    }

    fn take(&mut self, order: u64, wrong: &mut Vec<String>) {
        if order >= self.count || !self.orders.insert(order) {
            wrong.push(format!("{}: order {order} twice, or unknown", self.what));
        }
    }

    fn finish(self, wrong: &mut Vec<String>) {
        let missing = self.count - self.orders.len() as u64;
        if missing > 0 {
            wrong.push(format!("{}: {missing} orders are missing", self.what));
        }
    }
}

/// All records of a topic; of a partition in order.
async fn all(client: &Client, topic: &str) -> Result<Vec<Delivered>, Failure> {
    let ends = client.latest_offsets(topic).await?;
    let mut left: u64 = ends.iter().map(|end| end.offset.get()).sum();
    let mut records = Vec::new();
    let mut stream = client.subscribe(topic).from(Start::Earliest).open().await?;
    while left > 0 {
        records.push(stream.next().await.ok_or("the topic ended")??);
        left -= 1;
    }
    stream.close().await;
    Ok(records)
}

/// Waits until the ledger has as many entries as there are orders.
pub(crate) async fn wait_until_booked(client: &Client) -> Result<(), Failure> {
    let mut counts = [0, 1];
    while counts[0] != counts[1] {
        tokio::time::sleep(PAUSE).await;
        for (count, topic) in counts.iter_mut().zip([ORDERS, LEDGER]) {
            let ends = client.latest_offsets(topic).await?;
            *count = ends.iter().map(|end| end.offset.get()).sum();
        }
    }
    Ok(())
}

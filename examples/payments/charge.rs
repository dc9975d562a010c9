//! From `payments.orders` to `payments.charges`.

use std::sync::Arc;

use falcon_client::{Consumer, Order as InOrder, Record, RunOptions};

use tokio::task::JoinSet;

use crate::model::{Order, read, write};
use crate::{CHARGES, Failure, stop_on_interrupt};

pub(crate) async fn run(mut consumer: Consumer) -> Result<(), Failure> {
    let handle = Arc::new(consumer.handle());
    let mut tasks = JoinSet::new();
    stop_on_interrupt(consumer.handle(), &mut tasks);
    let options = RunOptions::new().concurrency(8).order(InOrder::Partition);
    let report = consumer
        .run(options, move |record| {
            let handle = Arc::clone(&handle);
            async move {
                let order: Order = read(record.value.as_deref())?;
                let charge = order.charge();
                let out = Record::new(write(&charge)?).key(charge.account);
                // The charge and how far the orders were read: both or neither.
                let step = handle.step().publish(CHARGES, out).commit(&record);
                step.send().await?;
                Ok::<(), Failure>(())
            }
        })
        .await?;
    println!("charging ended: {report}");
    consumer.close().await?;
    Ok(())
}

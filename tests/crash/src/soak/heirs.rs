//! Names that are forgotten, granted anew, and asked for by those who had them before.
//!
//! A named publisher falls silent until the broker has forgotten it. Another one takes the name. Then the
//! first comes back on its old connection: it must be refused, and the other one must go on.

use std::time::Duration;

use falcon_client::{Client, PublishError, Publisher, Record, TopicOptions};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shared::{Shared, count};

/// Time between two of them.
const EVERY: Duration = Duration::from_secs(10);
/// Above the broker's memory of silent publishers, a minute, and the time between two looks.
const SILENCE: Duration = Duration::from_secs(80);

/// What they publish, which nobody checks.
const TOPIC: &str = "inheritance";

/// One after the other, until told to stop.
pub(super) async fn run(shared: Shared, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    if shared.heard(create(&shared).await).is_none() {
        return;
    }
    for number in 0_u64.. {
        let (shared, cancelled) = (shared.clone(), stop.clone());
        tasks.spawn(async move {
            let followed = cancelled.run_until_cancelled(follow(&shared, number)).await;
            shared.heard(followed.unwrap_or(Ok(())));
        });
        stop.run_until_cancelled(sleep(EVERY)).await;
        if stop.is_cancelled() {
            break;
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn create(shared: &Shared) -> Result<(), String> {
    let client = shared.connect().await?;
    let options = TopicOptions::new(1).retention_bytes(1 << 20);
    let created = client.create_topic(TOPIC, options).await;
    created.map_err(|error| format!("{TOPIC}: {error}"))?;
    client.shutdown().await;
    Ok(())
}

async fn follow(shared: &Shared, number: u64) -> Result<(), String> {
    let name = format!("heir-{number}");
    let failed = |error: PublishError| format!("{name}: {error}");
    let (first_client, second_client) = (shared.connect().await?, shared.connect().await?);
    let first = publisher(&first_client, &name).await?;
    publish(&first).await.map_err(failed)?;
    sleep(SILENCE).await;
    let second = publisher(&second_client, &name).await?;
    publish(&second).await.map_err(failed)?;
    match publish(&first).await {
        Err(PublishError::Fenced { .. }) => count(&shared.tally.old_publishers_refused, 1),
        other => return Err(format!("{name}: its older publisher was told {other:?}")),
    }
    publish(&second).await.map_err(failed)?;
    first_client.shutdown().await;
    second_client.shutdown().await;
    Ok(())
}

async fn publisher(client: &Client, name: &str) -> Result<Publisher, String> {
    let publisher = client.publisher(TOPIC).name(name).build().await;
    publisher.map_err(|error| format!("no publisher {name}: {error}"))
}

async fn publish(publisher: &Publisher) -> Result<(), PublishError> {
    publisher.publish(Record::new("x")).await.map(drop)
}

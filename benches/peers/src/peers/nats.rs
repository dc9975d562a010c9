//! NATS JetStream, through async-nats.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishAckFuture};
use async_nats::jetstream::stream::{Config, StorageType};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use crate::peer::{Each, Peer, Reader, Writer};
use crate::record::Feed;
use crate::server::{Server, free_port};

/// Acks awaited at a time by one connection; both fewer and more made it slower.
const ACKS_MAX: usize = 1024;
/// Records of one pull request.
const PULL_RECORDS: usize = 20_000;
const PULL_EXPIRES: Duration = Duration::from_secs(30);
const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// Every setting that is not a default.
pub(crate) fn settings(is_full: bool) -> String {
    let server = if is_full {
        "`sync_interval: always`: synced before each ack"
    } else {
        "default `sync_interval`, 2 minutes: acked before the sync"
    };
    format!(
        "server: file storage, one replica, {server}; client: a stream per partition, `publish` futures with \
         at most {ACKS_MAX} acks in flight, acks awaited by a task of their own; reading: pull consumer, ack \
         policy none, {PULL_RECORDS} records a pull"
    )
}

/// Where it listens.
#[derive(Debug, Clone)]
pub(crate) struct Nats {
    address: String,
}

/// Starts it.
pub(crate) async fn start(program: &Path, folder: &Path, is_full: bool) -> Result<(Server, Nats)> {
    let port = free_port()?;
    let data = folder.join("data");
    std::fs::create_dir_all(&data)?;
    let sync = if is_full { "sync_interval: always" } else { "" };
    let store = data.display();
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{\n  store_dir: \"{store}\"\n  {sync}\n}}\n"
    );
    let config = folder.join("nats.conf");
    std::fs::write(&config, text)?;
    let mut command = Server::command(program);
    command.arg("-c").arg(&config);
    let server = Server::start(command, folder, &data, port).await?;
    let address = format!("nats://127.0.0.1:{port}");
    Ok((server, Nats { address }))
}

fn subject(stream: &str, partition: u32) -> String {
    format!("{stream}-{partition}")
}

impl Nats {
    async fn context(&self) -> Result<Context> {
        let client = async_nats::connect(&self.address).await?;
        let context = ContextBuilder::new()
            .timeout(ACK_TIMEOUT)
            .max_ack_inflight(ACKS_MAX);
        Ok(context.build(client))
    }
}

impl Peer for Nats {
    type Writer = NatsWriter;
    type Reader = NatsReader;

    async fn create(&self, stream: &str, partitions: u32) -> Result<()> {
        let context = self.context().await?;
        for partition in 0..partitions {
            let config = Config {
                name: subject(stream, partition),
                storage: StorageType::File,
                num_replicas: 1,
                ..Config::default()
            };
            context.create_stream(config).await?;
        }
        Ok(())
    }

    async fn delete(&self, stream: &str, partitions: u32) -> Result<()> {
        let context = self.context().await?;
        for partition in 0..partitions {
            context.delete_stream(subject(stream, partition)).await?;
        }
        Ok(())
    }

    async fn writer(&self, stream: &str, partition: u32) -> Result<NatsWriter> {
        Ok(NatsWriter {
            context: self.context().await?,
            subject: async_nats::Subject::from(subject(stream, partition)),
        })
    }

    async fn reader(&self, stream: &str, partition: u32) -> Result<NatsReader> {
        let stream = self
            .context()
            .await?
            .get_stream(subject(stream, partition))
            .await?;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::None,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let pulls = consumer.stream().max_messages_per_batch(PULL_RECORDS);
        let records = pulls.expires(PULL_EXPIRES).messages().await?;
        Ok(NatsReader { records })
    }

    async fn count(&self, stream: &str, partition: u32) -> Result<u64> {
        let mut stream = self
            .context()
            .await?
            .get_stream(subject(stream, partition))
            .await?;
        Ok(stream.info().await?.state.messages)
    }
}

/// A connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct NatsWriter {
    context: Context,
    subject: async_nats::Subject,
}

impl Writer for NatsWriter {
    async fn publish(&self, value: Bytes) -> Result<()> {
        let ack = self.context.publish(self.subject.clone(), value).await?;
        ack.await?;
        Ok(())
    }

    async fn bulk(&self, mut feed: Feed) -> Result<u64> {
        let (to, mut acks) = mpsc::channel::<PublishAckFuture>(ACKS_MAX);
        let waiter = tokio::spawn(async move {
            let mut acked = 0;
            while let Some(ack) = acks.recv().await {
                ack.await?;
                acked += 1;
            }
            anyhow::Ok(acked)
        });
        while let Some(value) = feed.next() {
            let ack = self.context.publish(self.subject.clone(), value).await?;
            if to.send(ack).await.is_err() {
                break;
            }
        }
        drop(to);
        waiter.await?
    }
}

/// A consumer on a connection of its own.
pub(crate) struct NatsReader {
    records: pull::Stream,
}

impl Reader for NatsReader {
    async fn read(mut self, mut each: impl Each) -> Result<()> {
        loop {
            let record = self.records.next().await.context("the consumer ended")?;
            if !each(&record?.payload) {
                return Ok(());
            }
        }
    }
}

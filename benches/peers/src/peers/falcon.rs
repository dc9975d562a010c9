//! Falcon, through its own client.

use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use falcon_client::{Client, Publisher, Record, Start, Subscription, TopicOptions};

use crate::peer::{Each, Peer, Reader, Writer};
use crate::record::Feed;
use crate::server::{Server, free_port};

/// Nothing but where it listens.
pub(crate) const SETTINGS: &str = "server and client: all defaults; every ack after the sync, there is no other \
     mode; `send` for each record, tickets dropped, `flush`; replays by `next_batch`";

/// Where it listens.
#[derive(Debug, Clone)]
pub(crate) struct Falcon {
    address: String,
}

/// Starts it.
pub(crate) async fn start(program: &Path, folder: &Path) -> Result<(Server, Falcon)> {
    let port = free_port()?;
    let data = folder.join("data");
    let listen = format!("127.0.0.1:{port}");
    let mut command = Server::command(program);
    command
        .args(["serve", "--listen", &listen, "--data-dir"])
        .arg(&data);
    let server = Server::start(command, folder, &data, port).await?;
    let address = format!("falcon://{listen}");
    Ok((server, Falcon { address }))
}

impl Falcon {
    async fn client(&self) -> Result<Client> {
        Ok(Client::connect(&self.address).await?)
    }
}

impl Peer for Falcon {
    type Writer = FalconWriter;
    type Reader = FalconReader;

    async fn create(&self, stream: &str, partitions: u32) -> Result<()> {
        let client = self.client().await?;
        client
            .create_topic(stream, TopicOptions::new(partitions))
            .await?;
        Ok(())
    }

    async fn delete(&self, stream: &str, _partitions: u32) -> Result<()> {
        Ok(self.client().await?.delete_topic(stream).await?)
    }

    async fn writer(&self, stream: &str, partition: u32) -> Result<FalconWriter> {
        let publisher = self.client().await?.publisher(stream).build().await?;
        Ok(FalconWriter {
            publisher,
            partition,
        })
    }

    async fn reader(&self, stream: &str, partition: u32) -> Result<FalconReader> {
        let client = self.client().await?;
        let subscription = client.subscribe(stream).partition(partition);
        let records = subscription.from(Start::Earliest).open().await?;
        Ok(FalconReader { records })
    }

    async fn count(&self, stream: &str, partition: u32) -> Result<u64> {
        let ends = self.client().await?.latest_offsets(stream).await?;
        let end = ends.get(partition as usize).context("no such partition")?;
        Ok(end.offset.since(end.log_start))
    }
}

/// A publisher on a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct FalconWriter {
    publisher: Publisher,
    partition: u32,
}

impl Writer for FalconWriter {
    async fn publish(&self, value: Bytes) -> Result<()> {
        let record = Record::new(value);
        self.publisher
            .send_to(self.partition, record)
            .await?
            .await?;
        Ok(())
    }

    async fn bulk(&self, mut feed: Feed) -> Result<u64> {
        while let Some(value) = feed.next() {
            let record = Record::new(value);
            drop(self.publisher.send_to(self.partition, record).await?);
        }
        self.publisher.flush().await?;
        Ok(feed.given())
    }
}

/// A subscription on a connection of its own.
pub(crate) struct FalconReader {
    records: Subscription,
}

impl Reader for FalconReader {
    async fn read(mut self, mut each: impl Each) -> Result<()> {
        'all: while let Some(batch) = self.records.next_batch().await {
            for record in &batch? {
                if !each(record.value().unwrap_or_default()) {
                    break 'all;
                }
            }
        }
        self.records.close().await;
        Ok(())
    }
}

//! RabbitMQ streams, through the `Client` of rabbitmq-stream-client: its producers and consumers clone every
//! message and pass it through a channel, which would measure them and not the server.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rabbitmq_stream_client::types::{Message, MessageResult, OffsetSpecification, ResponseKind};
use rabbitmq_stream_client::{Client, ClientOptions};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use crate::peer::{Each, Peer, Reader, Writer};
use crate::record::Feed;
use crate::server::{Server, free_port};

/// Every setting that is not a default.
pub(crate) const SETTINGS: &str = "server: only the stream plugin's listener; acked from memory, there is no \
     mode that syncs before each ack; client: the crate's `Client`, a stream per partition, up to 4,000 records \
     (768 KiB) in a publish, at most 40,000 unconfirmed; reading: 20 credits, one given back for each chunk";

/// Records of one publish of at most `PUBLISH_BYTES`.
const PUBLISH_RECORDS: usize = 4000;
const PUBLISH_BYTES: usize = 768 << 10;
/// Records sent and not confirmed.
const UNCONFIRMED_MAX: usize = 40_000;
const CREDITS: u16 = 20;
/// Of the one publisher or subscription of a connection.
const ID: u8 = 1;
/// It loads some hundred modules.
const START_MAX: Duration = Duration::from_secs(60);

/// Where it listens.
#[derive(Debug, Clone)]
pub(crate) struct Rabbit {
    options: ClientOptions,
}

/// Of server and virtual machine.
pub(crate) fn version(program: &Path) -> Option<String> {
    program.exists().then_some(())?;
    let server = crate::machine::package("rabbitmq-server")?;
    let machine = crate::machine::package("erlang-base").unwrap_or_default();
    Some(format!("RabbitMQ {server}, Erlang {machine}"))
}

/// Starts it, with a port mapper of its own that ends with it.
pub(crate) async fn start(program: &Path, folder: &Path) -> Result<(Server, Rabbit)> {
    let (port, mapper, distribution) = (free_port()?, free_port()?, free_port()?);
    let data = folder.join("data");
    for part in ["data", "log", "home"] {
        std::fs::create_dir_all(folder.join(part))?;
    }
    let config = folder.join("rabbitmq.conf");
    let listeners = format!("listeners.tcp = none\nstream.listeners.tcp.1 = 127.0.0.1:{port}\n");
    std::fs::write(&config, listeners)?;
    let plugins = folder.join("plugins");
    std::fs::write(&plugins, "[rabbitmq_stream].\n")?;
    let mut epmd = Server::command(Path::new("epmd"));
    epmd.env("ERL_EPMD_PORT", mapper.to_string());
    epmd.env("ERL_EPMD_ADDRESS", "127.0.0.1");
    let epmd = Server::start(epmd, folder, folder, mapper).await?;
    let mut command = Server::command(program);
    command.env("ERL_EPMD_PORT", mapper.to_string());
    command.env("ERL_EPMD_ADDRESS", "127.0.0.1");
    // The script then becomes the server, instead of waiting beside it.
    command.env("RUNNING_UNDER_SYSTEMD", "true");
    command.env("HOME", folder.join("home"));
    command.env("RABBITMQ_NODENAME", format!("peers{port}@localhost"));
    command.env("RABBITMQ_DIST_PORT", distribution.to_string());
    command.env("RABBITMQ_MNESIA_BASE", &data);
    command.env("RABBITMQ_LOG_BASE", folder.join("log"));
    command.env("RABBITMQ_CONFIG_FILE", &config);
    command.env("RABBITMQ_ENABLED_PLUGINS_FILE", &plugins);
    command.env("RABBITMQ_CONF_ENV_FILE", folder.join("none"));
    command.env("RABBITMQ_PID_FILE", folder.join("pid"));
    let mut server = Server::start_within(command, folder, &data, port, START_MAX).await?;
    server.owns(epmd);
    let options = ClientOptions::builder()
        .host("127.0.0.1")
        .port(port)
        .build();
    Ok((server, Rabbit { options }))
}

fn name(stream: &str, partition: u32) -> String {
    format!("{stream}-{partition}")
}

impl Rabbit {
    async fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.options.clone()).await?)
    }

    async fn subscribe(&self, stream: &str, from: OffsetSpecification) -> Result<RabbitReader> {
        let client = self.client().await?;
        let (to, chunks) = mpsc::channel(usize::from(CREDITS) * 2);
        let handler = move |result: MessageResult| {
            let to = to.clone();
            async move {
                if let Some(Ok(response)) = result
                    && let ResponseKind::Deliver(chunk) = response.kind()
                {
                    // A reader that has enough is gone.
                    to.send((chunk.chunk_first_offset, chunk.messages))
                        .await
                        .ok();
                }
                Ok(())
            }
        };
        client.set_handler(handler).await;
        let answer = client
            .subscribe(ID, stream, from, CREDITS, HashMap::new())
            .await?;
        if !answer.is_ok() {
            bail!("subscribing to {stream}: {:?}", answer.code());
        }
        Ok(RabbitReader { client, chunks })
    }
}

impl Peer for Rabbit {
    type Writer = RabbitWriter;
    type Reader = RabbitReader;

    async fn create(&self, stream: &str, partitions: u32) -> Result<()> {
        let client = self.client().await?;
        for partition in 0..partitions {
            let name = name(stream, partition);
            let answer = client.create_stream(&name, HashMap::new()).await?;
            if !answer.is_ok() {
                bail!("creating {name}: {:?}", answer.code());
            }
        }
        client.close().await?;
        Ok(())
    }

    async fn delete(&self, stream: &str, partitions: u32) -> Result<()> {
        let client = self.client().await?;
        for partition in 0..partitions {
            client.delete_stream(&name(stream, partition)).await?;
        }
        client.close().await?;
        Ok(())
    }

    async fn writer(&self, stream: &str, partition: u32) -> Result<RabbitWriter> {
        let client = self.client().await?;
        let shared = Arc::new(Shared::default());
        let confirmed = Arc::clone(&shared);
        let handler = move |result: MessageResult| {
            confirmed.handle(result);
            async { Ok(()) }
        };
        client.set_handler(handler).await;
        let name = name(stream, partition);
        let answer = client.declare_publisher(ID, None, &name).await?;
        if !answer.is_ok() {
            bail!("publishing to {name}: {:?}", answer.code());
        }
        Ok(RabbitWriter { client, shared })
    }

    async fn reader(&self, stream: &str, partition: u32) -> Result<RabbitReader> {
        self.subscribe(&name(stream, partition), OffsetSpecification::First)
            .await
    }

    async fn count(&self, stream: &str, partition: u32) -> Result<u64> {
        let name = name(stream, partition);
        let mut reader = self.subscribe(&name, OffsetSpecification::Last).await?;
        let chunk = reader.chunks.recv().await;
        let (first, messages) = chunk.context("the subscription ended")?;
        reader.client.close().await.ok();
        Ok(first + messages.len() as u64)
    }
}

/// What a writer and its connection's handler share.
struct Shared {
    next: Mutex<u64>,
    room: Semaphore,
    waiting: Mutex<HashMap<u64, oneshot::Sender<bool>>>,
    refused: Notify,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            next: Mutex::default(),
            room: Semaphore::new(UNCONFIRMED_MAX),
            waiting: Mutex::default(),
            refused: Notify::new(),
        }
    }
}

impl Shared {
    fn handle(&self, result: MessageResult) {
        let Some(Ok(response)) = result else {
            return self.refused.notify_one();
        };
        if let ResponseKind::PublishConfirm(confirm) = response.kind_ref() {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if !waiting.is_empty() {
                for id in &confirm.publishing_ids {
                    waiting.remove(id).map(|waiter| waiter.send(true));
                }
            }
            self.room.add_permits(confirm.publishing_ids.len());
        } else if let ResponseKind::PublishError(_) = response.kind_ref() {
            self.refused.notify_one();
        }
    }

    /// Numbers for so many records.
    fn numbers(&self, count: u64) -> u64 {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next += count;
        *next - count
    }

    /// Waits until so many more may be sent.
    async fn room(&self, count: usize) -> Result<()> {
        tokio::select! {
            room = self.room.acquire_many(u32::try_from(count)?) => room?.forget(),
            () = self.refused.notified() => bail!("a record was refused, or the connection lost"),
        }
        Ok(())
    }
}

/// A connection of its own.
#[derive(Clone)]
pub(crate) struct RabbitWriter {
    client: Client,
    shared: Arc<Shared>,
}

fn message(id: u64, value: &[u8]) -> Message {
    Message::builder().body(value).publising_id(id).build()
}

impl Writer for RabbitWriter {
    async fn publish(&self, value: Bytes) -> Result<()> {
        self.shared.room(1).await?;
        let id = self.shared.numbers(1);
        let (to, confirmed) = oneshot::channel();
        {
            let waiting = &self.shared.waiting;
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.insert(id, to);
        }
        self.client.publish(ID, message(id, &value)).await?;
        tokio::select! {
            confirmed = confirmed => anyhow::ensure!(confirmed?, "refused"),
            () = self.shared.refused.notified() => bail!("a record was refused, or the connection lost"),
        }
        Ok(())
    }

    async fn bulk(&self, mut feed: Feed) -> Result<u64> {
        let most = (PUBLISH_BYTES / feed.size()).clamp(1, PUBLISH_RECORDS);
        loop {
            let mut id = self.shared.numbers(most as u64);
            let mut messages = Vec::with_capacity(most);
            while messages.len() < most {
                let Some(value) = feed.next() else { break };
                messages.push(message(id, &value));
                id += 1;
            }
            if messages.is_empty() {
                break;
            }
            self.shared.room(messages.len()).await?;
            self.client.publish(ID, messages).await?;
        }
        // All the room there is, when all is confirmed.
        self.shared.room(UNCONFIRMED_MAX).await?;
        self.shared.room.add_permits(UNCONFIRMED_MAX);
        Ok(feed.given())
    }
}

/// A subscription on a connection of its own.
pub(crate) struct RabbitReader {
    client: Client,
    chunks: mpsc::Receiver<(u64, Vec<Message>)>,
}

impl Reader for RabbitReader {
    async fn read(mut self, mut each: impl Each) -> Result<()> {
        loop {
            let chunk = self.chunks.recv().await;
            let (_, messages) = chunk.context("the subscription ended")?;
            self.client.credit(ID, 1).await?;
            for message in &messages {
                if !each(message.data().unwrap_or_default()) {
                    self.client.close().await.ok();
                    return Ok(());
                }
            }
        }
    }
}

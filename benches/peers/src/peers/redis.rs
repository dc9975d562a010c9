//! Redis Streams, through redis-rs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, Pipeline, Value};

use crate::peer::{Each, Peer, Reader, Writer};
use crate::record::Feed;
use crate::server::{Server, free_port};

/// Records of one pipeline of at most `PIPELINE_BYTES`.
const PIPELINE_RECORDS: usize = 500;
const PIPELINE_BYTES: usize = 128 << 10;
/// Pipelines in flight on one connection.
const PIPELINES: usize = 4;
/// Records of one `XREAD`.
const READ_RECORDS: usize = 1000;
const POLL: Duration = Duration::from_millis(20);

/// Every setting that is not a default.
pub(crate) fn settings(is_full: bool) -> String {
    let sync = if is_full {
        "`appendfsync always`: synced before each answer"
    } else {
        "`appendfsync everysec`, the default of the append-only file: answered before the sync"
    };
    format!(
        "server: `appendonly yes` (the default is `no`, nothing durable at all), {sync}; `save \"\"` and \
         `auto-aof-rewrite-percentage 0`, so that no rewriting in the background slows it down; client: \
         multiplexed connection, `TCP_NODELAY`, no response timeout, a stream per partition, {PIPELINES} \
         pipelines of up to {PIPELINE_RECORDS} `XADD` (128 KiB) in flight; reading: `XREAD BLOCK 0 COUNT \
         {READ_RECORDS}`, the next one sent before the last one's records are looked at"
    )
}

/// Where it listens.
#[derive(Debug, Clone)]
pub(crate) struct Redis {
    client: Client,
}

/// Starts it.
pub(crate) async fn start(program: &Path, folder: &Path, is_full: bool) -> Result<(Server, Redis)> {
    let port = free_port()?;
    let data = folder.join("data");
    std::fs::create_dir_all(&data)?;
    let sync = if is_full { "always" } else { "everysec" };
    let mut command = Server::command(program);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--appendonly", "yes", "--appendfsync", sync, "--save", ""]);
    command
        .args(["--auto-aof-rewrite-percentage", "0", "--dir"])
        .arg(&data);
    let server = Server::start(command, folder, &data, port).await?;
    let info = format!("redis://127.0.0.1:{port}").into_connection_info()?;
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let client = Client::open(info)?;
    Ok((server, Redis { client }))
}

fn key(stream: &str, partition: u32) -> String {
    format!("{stream}-{partition}")
}

impl Redis {
    async fn connection(&self) -> Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let client = &self.client;
        Ok(client
            .get_multiplexed_async_connection_with_config(&config)
            .await?)
    }
}

impl Peer for Redis {
    type Writer = RedisWriter;
    type Reader = RedisReader;

    async fn create(&self, _stream: &str, _partitions: u32) -> Result<()> {
        // The first record makes it.
        Ok(())
    }

    async fn delete(&self, stream: &str, partitions: u32) -> Result<()> {
        let mut connection = self.connection().await?;
        for partition in 0..partitions {
            let mut delete = redis::cmd("DEL");
            delete.arg(key(stream, partition));
            delete.query_async::<()>(&mut connection).await?;
        }
        // Gives the file's space back.
        redis::cmd("BGREWRITEAOF")
            .query_async::<Value>(&mut connection)
            .await?;
        loop {
            tokio::time::sleep(POLL).await;
            let mut info = redis::cmd("INFO");
            let info: String = info.arg("persistence").query_async(&mut connection).await?;
            let is_busy = |line: &str| {
                line == "aof_rewrite_in_progress:1" || line == "aof_rewrite_scheduled:1"
            };
            if !info.lines().any(|line| is_busy(line.trim())) {
                return Ok(());
            }
        }
    }

    async fn writer(&self, stream: &str, partition: u32) -> Result<RedisWriter> {
        Ok(RedisWriter {
            connection: self.connection().await?,
            key: key(stream, partition),
        })
    }

    async fn reader(&self, stream: &str, partition: u32) -> Result<RedisReader> {
        Ok(RedisReader {
            connection: self.connection().await?,
            key: key(stream, partition),
        })
    }

    async fn count(&self, stream: &str, partition: u32) -> Result<u64> {
        let mut connection = self.connection().await?;
        let mut count = redis::cmd("XLEN");
        Ok(count
            .arg(key(stream, partition))
            .query_async(&mut connection)
            .await?)
    }
}

/// A connection of its own.
#[derive(Clone)]
pub(crate) struct RedisWriter {
    connection: MultiplexedConnection,
    key: String,
}

impl RedisWriter {
    /// Sends the next records as one pipeline.
    fn pipeline(&self, feed: &mut Feed) -> Option<impl Future<Output = Result<u64>> + use<>> {
        let records = (PIPELINE_BYTES / feed.size()).clamp(1, PIPELINE_RECORDS);
        let mut pipeline = Pipeline::with_capacity(records);
        while pipeline.len() < records {
            let Some(value) = feed.next() else { break };
            let append = pipeline.cmd("XADD").arg(&self.key).arg("*").arg("v");
            append.arg(&value[..]).ignore();
        }
        let mut connection = self.connection.clone();
        let count = pipeline.len() as u64;
        (count > 0).then_some(async move {
            pipeline.exec_async(&mut connection).await?;
            Ok(count)
        })
    }
}

impl Writer for RedisWriter {
    async fn publish(&self, value: Bytes) -> Result<()> {
        let mut connection = self.connection.clone();
        let mut append = redis::cmd("XADD");
        append.arg(&self.key).arg("*").arg("v").arg(&value[..]);
        append.exec_async(&mut connection).await?;
        Ok(())
    }

    async fn bulk(&self, mut feed: Feed) -> Result<u64> {
        let mut pipelines = FuturesUnordered::new();
        let mut acked = 0;
        loop {
            while pipelines.len() < PIPELINES {
                let Some(pipeline) = self.pipeline(&mut feed) else {
                    break;
                };
                pipelines.push(tokio::spawn(pipeline));
            }
            match pipelines.next().await {
                Some(done) => acked += done??,
                None => return Ok(acked),
            }
        }
    }
}

/// A connection of its own.
pub(crate) struct RedisReader {
    connection: MultiplexedConnection,
    key: String,
}

impl RedisReader {
    fn ask(&self, after: &[u8]) -> impl Future<Output = Result<Value>> + use<> {
        let mut connection = self.connection.clone();
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(READ_RECORDS).arg("BLOCK").arg(0);
        read.arg("STREAMS").arg(&self.key).arg(after);
        async move { Ok(read.query_async(&mut connection).await?) }
    }
}

impl Reader for RedisReader {
    async fn read(self, mut each: impl Each) -> Result<()> {
        let mut answer = self.ask(b"0").await?;
        loop {
            let entries = entries(&answer)?;
            let (last, _) = fields(entries.last().context("no entries")?)?;
            let next = tokio::spawn(self.ask(last));
            for entry in entries {
                let (_, value) = fields(entry)?;
                if !each(value) {
                    next.abort();
                    return Ok(());
                }
            }
            answer = next.await??;
        }
    }
}

/// `[[key, [entry, ..]]]`
fn entries(answer: &Value) -> Result<&[Value]> {
    if let Value::Array(streams) = answer
        && let Some(Value::Array(stream)) = streams.first()
        && let Some(Value::Array(entries)) = stream.get(1)
    {
        return Ok(entries);
    }
    bail!("an unexpected answer to XREAD")
}

/// `[id, [name, value]]`
fn fields(entry: &Value) -> Result<(&[u8], &[u8])> {
    if let Value::Array(entry) = entry
        && let [Value::BulkString(id), Value::Array(fields)] = &entry[..]
        && let [_, Value::BulkString(value)] = &fields[..]
    {
        return Ok((id, value));
    }
    bail!("an unexpected entry of XREAD")
}

//! The systems that are compared: how each is started and spoken to.
//!
//! Owns the list. Promises: every setting that is not a default has a line in `settings`, which is printed
//! with the results. Must not know: what is measured.

pub(crate) mod falcon;
pub(crate) mod nats;
pub(crate) mod rabbit;
pub(crate) mod redis;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use crate::server::Server;

/// A server with its durability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// Falcon; there is one durability.
    Falcon,
    /// NATS JetStream as it comes.
    NatsDefault,
    /// NATS JetStream, synced before each ack.
    NatsFull,
    /// Redis Streams with its append-only file, synced every second.
    RedisDefault,
    /// Redis Streams, synced before each ack.
    RedisFull,
    /// RabbitMQ streams as they come.
    RabbitDefault,
}

/// In the order in which they are measured and shown.
pub(crate) const SYSTEMS: [System; 6] = [
    System::Falcon,
    System::NatsDefault,
    System::NatsFull,
    System::RedisDefault,
    System::RedisFull,
    System::RabbitDefault,
];

/// Programs of the servers.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// `falcon`.
    pub(crate) falcon: PathBuf,
    /// `nats-server`.
    pub(crate) nats: PathBuf,
    /// `redis-server`.
    pub(crate) redis: PathBuf,
    /// `rabbitmq-server`, the script that becomes the server.
    pub(crate) rabbit: PathBuf,
}

/// A connected peer.
#[derive(Debug, Clone)]
pub(crate) enum Connected {
    /// Falcon.
    Falcon(falcon::Falcon),
    /// NATS.
    Nats(nats::Nats),
    /// Redis.
    Redis(redis::Redis),
    /// RabbitMQ.
    Rabbit(rabbit::Rabbit),
}

impl System {
    /// What it is called in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Falcon => "Falcon",
            Self::NatsDefault => "NATS D",
            Self::NatsFull => "NATS F",
            Self::RedisDefault => "Redis D",
            Self::RedisFull => "Redis F",
            Self::RabbitDefault => "RabbitMQ D",
        }
    }

    /// The word for `--only`.
    pub(crate) fn family(self) -> &'static str {
        match self {
            Self::Falcon => "falcon",
            Self::NatsDefault | Self::NatsFull => "nats",
            Self::RedisDefault | Self::RedisFull => "redis",
            Self::RabbitDefault => "rabbit",
        }
    }

    /// Whether replaying is measured: durability is no matter for a reader.
    pub(crate) fn is_replayed(self) -> bool {
        !matches!(self, Self::NatsFull | Self::RedisFull)
    }

    /// Every setting that is not a default, of server and client.
    pub(crate) fn settings(self) -> String {
        match self {
            Self::Falcon => falcon::SETTINGS.to_owned(),
            Self::NatsDefault => nats::settings(false),
            Self::NatsFull => nats::settings(true),
            Self::RedisDefault => redis::settings(false),
            Self::RedisFull => redis::settings(true),
            Self::RabbitDefault => rabbit::SETTINGS.to_owned(),
        }
    }

    /// Version of the server, if it is there.
    pub(crate) fn version(self, programs: &Programs) -> Option<String> {
        match self {
            Self::Falcon => crate::machine::output(&programs.falcon, &["--version"]),
            Self::NatsDefault | Self::NatsFull => {
                crate::machine::output(&programs.nats, &["--version"])
            }
            Self::RedisDefault | Self::RedisFull => {
                let version = crate::machine::output(&programs.redis, &["--version"])?;
                // The rest says how it was built.
                version.split(" sha").next().map(str::to_owned)
            }
            Self::RabbitDefault => rabbit::version(&programs.rabbit),
        }
    }

    /// Starts a server in an empty folder and connects.
    pub(crate) async fn start(
        self,
        programs: &Programs,
        folder: &Path,
    ) -> Result<(Server, Connected)> {
        Ok(match self {
            Self::Falcon => {
                let (server, peer) = falcon::start(&programs.falcon, folder).await?;
                (server, Connected::Falcon(peer))
            }
            Self::NatsDefault | Self::NatsFull => {
                let is_full = self == Self::NatsFull;
                let (server, peer) = nats::start(&programs.nats, folder, is_full).await?;
                (server, Connected::Nats(peer))
            }
            Self::RedisDefault | Self::RedisFull => {
                let is_full = self == Self::RedisFull;
                let (server, peer) = redis::start(&programs.redis, folder, is_full).await?;
                (server, Connected::Redis(peer))
            }
            Self::RabbitDefault => {
                let (server, peer) = rabbit::start(&programs.rabbit, folder).await?;
                (server, Connected::Rabbit(peer))
            }
        })
    }
}

//! The broker as a library.

use std::net::SocketAddr;

use thiserror::Error;

use crate::config::{Config, ConfigError};

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
}

/// Why a broker did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// What a shutdown did.
#[derive(Debug, Default)]
pub struct ShutdownReport {}

impl Broker {
    /// Starts a broker.
    #[expect(clippy::unused_async, reason = "the signature of the real one")]
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        Ok(Self {
            address: config.listen,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it.
    #[expect(clippy::unused_async, reason = "the signature of the real one")]
    pub async fn shutdown(self) -> ShutdownReport {
        ShutdownReport::default()
    }
}

//! The connection of a command to its broker.

use std::time::Duration;

use falcon_client::Client;

use super::Global;
use super::failure::CliError;

/// Connects to the broker that the flags name.
pub(crate) async fn connect(global: &Global) -> Result<Client, CliError> {
    let mut builder =
        Client::builder(&global.server).name(concat!("falcon-cli/", env!("CARGO_PKG_VERSION")));
    if let Some(timeout) = global.timeout {
        builder = builder.connect_timeout(timeout).request_timeout(timeout);
    }
    let connected = builder.connect().await;
    connected.map_err(|error| CliError::from_client("connect", &error))
}

/// How long an orderly end may take; everything that matters is acknowledged by then.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Says goodbye, so that the broker's log does not show a lost connection.
pub(crate) async fn close(client: &Client) {
    let report = client.shutdown_within(GOODBYE_MAX).await;
    tracing::debug!(?report, "closed");
}

//! The connection of a command to its broker.

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

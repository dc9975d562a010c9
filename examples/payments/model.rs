//! What flows through the pipeline, as JSON.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// What of a flight makes an order.
#[derive(Debug, Deserialize)]
struct Flight {
    tailnum: Option<String>,
    distance: i64,
}

/// Somebody wants to fly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Number of its line, from 0.
    pub(crate) id: u64,
    /// Who pays: the aircraft.
    pub(crate) account: String,
    /// The fare.
    pub(crate) cents: i64,
}

/// What an order costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Charge {
    /// The order.
    pub(crate) order: u64,
    /// Who pays.
    pub(crate) account: String,
    /// Fare and fee.
    pub(crate) cents: i64,
}

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The order.
    pub(crate) order: u64,
    /// Who pays.
    pub(crate) account: String,
    /// What was charged.
    pub(crate) cents: i64,
    /// What the account owes with it.
    pub(crate) balance: i64,
    /// Number of the entry in its account, from 1.
    pub(crate) number: u64,
}

impl Order {
    /// The order of a line.
    pub(crate) fn of(id: u64, line: &str) -> Result<Self, Failure> {
        let flight: Flight = serde_json::from_str(line)?;
        Ok(Self {
            id,
            account: flight.tailnum.unwrap_or_else(|| "unknown".to_owned()),
            cents: 5_000 + 12 * flight.distance,
        })
    }

    /// With two percent for whoever handles the card.
    pub(crate) fn charge(&self) -> Charge {
        Charge {
            order: self.id,
            account: self.account.clone(),
            cents: self.cents + self.cents / 50,
        }
    }
}

/// Reads a payload.
pub(crate) fn read<T: DeserializeOwned>(value: Option<&[u8]>) -> Result<T, Failure> {
    Ok(serde_json::from_slice(
        value.ok_or("a record without a payload")?,
    )?)
}

/// Writes a payload.
pub(crate) fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    Ok(serde_json::to_vec(value)?)
}

//! Producer identities: under which number and epoch batches are sent.

use falcon_protocol::message::{InitProducer, ProducerGranted};
use falcon_protocol::{Kind, ProducerId};

use crate::core::{Core, Repeat};
use crate::error::Error;

/// Under which identity batches are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: ProducerId,
    pub(crate) epoch: u32,
}

impl Identity {
    /// That of a publisher without idempotence.
    pub(crate) const NONE: Self = Self {
        id: ProducerId::NONE,
        epoch: 0,
    };
}

impl Core {
    /// A new identity, or, under a name, the next epoch of the identity of that name.
    pub(crate) async fn init_producer(&self, name: Option<&str>) -> Result<Identity, Error> {
        let request = InitProducer {
            name: name.map(str::to_owned),
        };
        let granted: ProducerGranted = self
            .call("init producer", Kind::InitProducer, &request, Repeat::Safe)
            .await?;
        Ok(Identity {
            id: granted.producer_id,
            epoch: granted.epoch,
        })
    }
}

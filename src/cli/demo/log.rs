//! What was published and what came back, in a form that can be compared.

use std::collections::BTreeMap;

use bytes::Bytes;
use falcon_client::Client;
use falcon_protocol::{Offset, Partition};

use super::flights::{Flight, digest};
use crate::cli::failure::CliError;

/// Records by partition, in the order they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Copy {
    partitions: BTreeMap<Partition, Vec<(Offset, Bytes)>>,
}

impl Copy {
    pub(super) fn push(&mut self, partition: Partition, offset: Offset, value: Option<Bytes>) {
        let records = self.partitions.entry(partition).or_default();
        records.push((offset, value.unwrap_or_default()));
    }

    pub(super) fn records(&self) -> usize {
        self.partitions.values().map(Vec::len).sum()
    }

    /// The records from these offsets on; partitions that are not named are left out.
    pub(super) fn since(&self, positions: &BTreeMap<Partition, Offset>) -> Self {
        let mut copy = Self::default();
        for (partition, records) in &self.partitions {
            let Some(from) = positions.get(partition) else {
                continue;
            };
            for (offset, value) in records.iter().filter(|(offset, _)| offset >= from) {
                copy.push(*partition, *offset, Some(value.clone()));
            }
        }
        copy
    }
}

/// The flights with the places they got.
pub(super) struct Published {
    flights: Vec<(Flight, Partition, Offset)>,
    copy: Copy,
}

impl Published {
    /// Publishes the flights and waits until all are durable.
    pub(super) async fn publish(
        client: &Client,
        topic: &str,
        flights: &[Flight],
    ) -> Result<Self, CliError> {
        let failed = |error| CliError::from_publish("demo", &error);
        let publisher = client.publisher(topic).build().await;
        let publisher = publisher.map_err(|error| failed(error.into()))?;
        let mut tickets = Vec::with_capacity(flights.len());
        for flight in flights {
            tickets.push(publisher.send(flight.record()).await.map_err(failed)?);
        }
        let mut placed = Vec::with_capacity(flights.len());
        for (flight, ticket) in flights.iter().zip(tickets) {
            let receipt = ticket.await.map_err(failed)?;
            placed.push((flight.clone(), receipt.partition, receipt.offset));
        }
        Ok(Self::new(placed))
    }

    fn new(flights: Vec<(Flight, Partition, Offset)>) -> Self {
        let mut copy = Copy::default();
        for (flight, partition, offset) in &flights {
            copy.push(*partition, *offset, Some(flight.line.clone()));
        }
        Self { flights, copy }
    }

    /// What a reader from the beginning must get.
    pub(super) fn copy(&self) -> &Copy {
        &self.copy
    }

    pub(super) fn bytes(&self) -> usize {
        let lines = self.flights.iter().map(|(flight, _, _)| flight.line.len());
        lines.sum()
    }

    /// Whether each partition's offsets are 0, 1, 2, ... in the order sent.
    pub(super) fn is_dense(&self) -> bool {
        self.copy.partitions.values().all(|records| {
            let offsets = records.iter().map(|(offset, _)| offset.get());
            offsets.eq(0..records.len() as u64)
        })
    }

    /// Whether equal keys share a partition.
    pub(super) fn keeps_keys_together(&self) -> bool {
        let mut homes: BTreeMap<&Bytes, Partition> = BTreeMap::new();
        self.flights.iter().all(|(flight, partition, _)| {
            flight
                .tailnum
                .as_ref()
                .is_none_or(|key| homes.entry(key).or_insert(*partition) == partition)
        })
    }

    /// The partition with most records, and how many it has.
    pub(super) fn largest_partition(&self) -> (Partition, u64) {
        let sizes = self.copy.partitions.iter();
        let sizes = sizes.map(|(partition, records)| (*partition, records.len() as u64));
        sizes
            .max_by_key(|(_, records)| *records)
            .unwrap_or((Partition(0), 0))
    }

    /// The first record of this time or later in each partition that has one.
    pub(super) fn positions_at(&self, time_ms: i64) -> BTreeMap<Partition, Offset> {
        let mut positions = BTreeMap::new();
        for (flight, partition, offset) in &self.flights {
            if flight.time_ms >= time_ms {
                positions.entry(*partition).or_insert(*offset);
            }
        }
        positions
    }

    /// SHA-256 over the records of `copy` in the order they were sent.
    pub(super) fn digest_of(&self, copy: &Copy) -> String {
        let by_place: BTreeMap<(Partition, Offset), &Bytes> = copy
            .partitions
            .iter()
            .flat_map(|(partition, records)| {
                records
                    .iter()
                    .map(move |(offset, value)| ((*partition, *offset), value))
            })
            .collect();
        let lines = self.flights.iter().filter_map(|(_, partition, offset)| {
            by_place.get(&(*partition, *offset)).map(|value| &***value)
        });
        digest(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::flights::{EVENING_MS, file_digest};

    fn placed(place: impl Fn(usize, &Flight) -> (u32, u64)) -> Published {
        let flights = Flight::all().unwrap().into_iter().enumerate();
        let placed = flights.map(|(index, flight)| {
            let (partition, offset) = place(index, &flight);
            (flight, Partition(partition), Offset(offset))
        });
        Published::new(placed.collect())
    }

    #[test]
    fn a_faithful_log_passes_every_check() {
        let published = placed(|index, _| (0, index as u64));
        assert!(published.is_dense());
        assert!(published.keeps_keys_together());
        assert_eq!(published.digest_of(published.copy()), file_digest());
        assert_eq!(published.largest_partition(), (Partition(0), 842));
        let rest = published.copy().since(&published.positions_at(EVENING_MS));
        assert!(rest.records() > 0 && rest.records() < 842);
    }

    #[test]
    fn an_unfaithful_log_fails_them() {
        let swapped = placed(|index, _| (0, (index ^ 1) as u64));
        assert!(!swapped.is_dense());
        let scattered = placed(|index, _| (u32::from(index % 2 == 1), (index / 2) as u64));
        assert!(scattered.is_dense());
        assert!(!scattered.keeps_keys_together());
        let published = placed(|index, _| (0, index as u64));
        let mut copy = published.copy().clone();
        copy.partitions.get_mut(&Partition(0)).unwrap()[7].1 = Bytes::from_static(b"x");
        assert_ne!(published.digest_of(&copy), file_digest());
        assert_ne!(copy, *published.copy());
        copy.partitions.get_mut(&Partition(0)).unwrap().pop();
        assert_ne!(published.digest_of(&copy), file_digest());
    }
}

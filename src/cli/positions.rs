//! Positions in the partitions of a topic, as offsets.

use falcon_client::{Client, Error, Start};
use falcon_protocol::Partition;
use falcon_protocol::message::ListedOffset;

/// Where `at` lies now in every partition, or in one. An offset is taken as it is, even where the
/// broker has no such record: what it is used for finds out, and says so precisely.
pub(crate) async fn resolve(
    client: &Client,
    topic: &str,
    partition: Option<u32>,
    at: Start,
) -> Result<Vec<ListedOffset>, Error> {
    let mut listed = match at {
        Start::Offset(offset) => {
            let mut listed = client.list_offsets(topic, Start::Latest).await?;
            for position in &mut listed {
                position.offset = offset;
            }
            listed
        }
        Start::Earliest
        | Start::Latest
        | Start::Time(_)
        | Start::TimestampMs(_)
        | Start::Last(_) => client.list_offsets(topic, at).await?,
    };
    if let Some(partition) = partition {
        let partitions = u32::try_from(listed.len()).unwrap_or(u32::MAX);
        listed.retain(|position| position.partition == Partition(partition));
        if listed.is_empty() {
            return Err(Error::UnknownPartition {
                topic: topic.to_owned(),
                partition,
                partitions,
            });
        }
    }
    Ok(listed)
}

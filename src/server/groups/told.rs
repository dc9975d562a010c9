//! What the log and the counters say of groups.

use tracing::{info, warn};

use super::roster::Roster;
use crate::group::coordinator::{Event, Happened};
use crate::metrics::GroupMetrics;

/// LIMIT: partitions that are named one by one when many are taken away at a time.
const NAMED_MAX: usize = 20;

/// Counts and logs what happened; who is gone is forgotten.
pub(super) fn tell(events: &[Event], roster: &mut Roster, metrics: &GroupMetrics) {
    let mut overdue = 0;
    for Event { group, what } in events {
        let client = |roster: &Roster, member| {
            let origin = roster.origin(group, member);
            origin.map_or_else(String::new, |origin| origin.client.clone())
        };
        match what {
            Happened::Joined(member) => {
                let client = client(roster, *member);
                info!(group, %member, client, "a member joined");
            }
            Happened::Left(member, instance) => {
                let client = client(roster, *member);
                let instance = instance.as_deref().unwrap_or_default();
                info!(group, %member, client, instance, "a member left");
                roster.forget(group, *member);
            }
            Happened::LetGo {
                member,
                instance,
                silent_ms,
            } => {
                let client = client(roster, *member);
                let instance = instance.as_deref().unwrap_or_default();
                info!(group, %member, client, instance, silent_ms, "a member was silent and is let go");
                metrics.let_go.add(1);
                roster.forget(group, *member);
            }
            Happened::Replaced { old, new, instance } => {
                let client = client(roster, *new);
                let instance = instance.as_deref().unwrap_or_default();
                info!(group, %old, %new, client, instance, "a member took another's place");
                roster.forget(group, *old);
            }
            Happened::Overdue(member, partition) => {
                overdue += 1;
                metrics.overdue.add(1);
                if overdue <= NAMED_MAX {
                    let client = client(roster, *member);
                    warn!(group, %member, client, %partition,
                        "a partition was taken from a member that did not give it up in time");
                }
            }
            Happened::Retargeted(_) => {
                metrics.rebalances.add(1);
            }
            Happened::LeftOut(partitions) => warn!(
                group,
                partitions, "partitions get no owner, raise limits.committed_offsets_max"
            ),
        }
    }
    if overdue > NAMED_MAX {
        let more = overdue - NAMED_MAX;
        warn!(
            more,
            "more partitions were taken from members that did not give them up in time"
        );
    }
}

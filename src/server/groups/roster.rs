//! Who the members are, for people: where they come from and how far they are.
//!
//! LIMIT: an origin for each member, a progress for each partition that a member has.

use std::collections::HashMap;
use std::sync::Arc;

use falcon_protocol::message::GroupProgress;
use falcon_protocol::{MemberId, PartitionId};

use crate::server::connection::Origin;

/// Of all groups with members.
#[derive(Debug, Default)]
pub(super) struct Roster {
    groups: HashMap<String, Group>,
}

#[derive(Debug, Default)]
struct Group {
    origins: HashMap<MemberId, Arc<Origin>>,
    progress: HashMap<PartitionId, Noted>,
}

/// What a member said of a partition, and when.
#[derive(Debug)]
struct Noted {
    member: MemberId,
    progress: GroupProgress,
    at: u64,
}

impl Roster {
    /// A member was heard.
    pub(super) fn hear(&mut self, group: &str, member: MemberId, origin: Arc<Origin>) {
        self.group(group).origins.insert(member, origin);
    }

    /// A member that owns a partition said how far it is.
    pub(super) fn note(
        &mut self,
        group: &str,
        member: MemberId,
        (progress, at): (GroupProgress, u64),
    ) {
        let partition = progress.partition;
        let noted = Noted {
            member,
            progress,
            at,
        };
        self.group(group).progress.insert(partition, noted);
    }

    fn group(&mut self, name: &str) -> &mut Group {
        self.groups.entry(name.to_owned()).or_default()
    }

    /// A member is gone; where it came from.
    pub(super) fn forget(&mut self, group: &str, member: MemberId) -> Option<Arc<Origin>> {
        let entry = self.groups.get_mut(group)?;
        entry.progress.retain(|_, noted| noted.member != member);
        let origin = entry.origins.remove(&member);
        if entry.origins.is_empty() {
            self.groups.remove(group);
        }
        origin
    }

    pub(super) fn origin(&self, group: &str, member: MemberId) -> Option<&Arc<Origin>> {
        self.groups.get(group)?.origins.get(&member)
    }

    /// What the owner of a partition last said of it, as it is now.
    pub(super) fn progress(
        &self,
        group: &str,
        owner: MemberId,
        partition: PartitionId,
        now: u64,
    ) -> Option<GroupProgress> {
        let noted = self.groups.get(group)?.progress.get(&partition)?;
        let is_of_owner = noted.member == owner;
        is_of_owner.then(|| GroupProgress {
            since_ms: noted
                .progress
                .since_ms
                .saturating_add(now.saturating_sub(noted.at)),
            ..noted.progress.clone()
        })
    }
}

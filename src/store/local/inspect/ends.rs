//! Where the journal ends, and what is not there.

use super::{Finding, FindingKind, Inspection};
use crate::store::local::TornTail;
use crate::store::local::identity::CleanMarker;
use crate::store::local::open::clean_path;
use crate::store::local::recovery::Survey;

/// What a crash left behind the end. After a clean stop there is no such thing.
pub(super) fn torn_tail(clean: Option<&CleanMarker>, found: &Survey) -> Option<TornTail> {
    if clean.is_some() {
        return None;
    }
    let tail = found.open_tail.filter(|tail| tail.torn_bytes > 0)?;
    let segment = *found.infos.keys().next_back()?;
    Some(TornTail {
        segment,
        position: tail.end,
        bytes: tail.torn_bytes,
    })
}

impl Inspection {
    /// The marker is the last thing written: the journal ends where it says, to the byte.
    pub(super) fn check_marker(&self, found: &mut Vec<Finding>) {
        let Some(clean) = &self.clean else {
            return;
        };
        let agrees = match self.infos.last_key_value() {
            Some((number, last)) => {
                *number == clean.segment
                    && last.groups_end == clean.end
                    && last.end_seq == clean.next_seq
                    && last.file_bytes >= clean.end
            }
            None => false,
        };
        if !agrees {
            let path = clean_path(&self.config);
            found.push(self.finding(&path, FindingKind::MarkerEnd));
        }
    }
}

//! Choosing the index: trusted, built again, or in memory.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::folder::Folder;
use super::{CleanMarker, LocalConfig, OpenError, Segments, Survey};
use crate::store::local::IndexReport;
use crate::store::local::index::{self, Opened, TreeIndex};
use crate::store::local::recovery::{Given, LastWord, SurveyError, survey};

/// The journal as found, and the index that fits it.
#[derive(Debug)]
pub(super) struct Indexed {
    pub(super) tree: Option<TreeIndex>,
    pub(super) survey: Survey,
    pub(super) report: IndexReport,
}

/// Opens the index, trusts it or throws it away, and surveys the journal.
pub(super) fn survey_with_index(
    config: &LocalConfig,
    folder: &Folder,
    segments: &Segments,
    last: LastWord<'_>,
) -> Result<Indexed, OpenError> {
    let clean = last.clean;
    let (tree, report) = open_index(config, folder, clean);
    let indexed: HashSet<u64> = match (&report, clean) {
        (IndexReport::Trusted, Some(clean)) => clean.indexed.iter().copied().collect(),
        (_, _) => HashSet::new(),
    };
    let mut given = Given {
        segments,
        journal_id: folder.identity.journal_id,
        last,
        tree: tree.as_ref(),
        indexed: &indexed,
        trusts_footers: true,
        progress: Some(&config.metrics.process.recovery_segments_read),
    };
    let reason = match survey(given, &folder.segments) {
        Ok(survey) => {
            return Ok(Indexed {
                tree,
                survey,
                report,
            });
        }
        Err(SurveyError::Open(error)) => return Err(error),
        Err(SurveyError::Tree(reason)) => reason,
    };
    tracing::error!(reason, "the index cannot be written, keeping it in memory");
    let nothing = HashSet::new();
    given.tree = None;
    given.indexed = &nothing;
    match survey(given, &folder.segments) {
        Ok(survey) => Ok(Indexed {
            tree: None,
            survey,
            report: IndexReport::InMemory { reason },
        }),
        Err(SurveyError::Open(error)) => Err(error),
        Err(SurveyError::Tree(_)) => unreachable!("there is no tree to refuse rows"),
    }
}

fn open_index(
    config: &LocalConfig,
    folder: &Folder,
    clean: Option<&CleanMarker>,
) -> (Option<TreeIndex>, IndexReport) {
    let Some(index_dir) = &config.index_dir else {
        let reason = "no folder is configured for it".to_owned();
        return (None, IndexReport::InMemory { reason });
    };
    let reason = match clean {
        None if folder.is_new => None,
        None => Some("the last stop was not clean".to_owned()),
        Some(clean) if clean.index_token == 0 => {
            Some("the last stop left no index to trust".to_owned())
        }
        Some(clean) => match index::open(index_dir, config.index_open_timeout) {
            Opened::Ready(tree) if tree.token() == Some(clean.index_token) => {
                return (Some(tree), IndexReport::Trusted);
            }
            Opened::Ready(tree) => {
                drop(tree);
                Some("it is not the one that the last stop left".to_owned())
            }
            Opened::Broken(reason) => Some(reason),
            Opened::Hangs => return hangs(),
        },
    };
    if let Err(error) = index::discard(index_dir) {
        let reason = format!("{error}: {}", error.source);
        return (None, IndexReport::InMemory { reason });
    }
    match index::open(index_dir, config.index_open_timeout) {
        Opened::Ready(tree) => {
            let report = match reason {
                None => IndexReport::Created,
                Some(reason) => IndexReport::Rebuilt { reason },
            };
            (Some(tree), report)
        }
        Opened::Broken(reason) => (None, IndexReport::InMemory { reason }),
        Opened::Hangs => hangs(),
    }
}

fn hangs() -> (Option<TreeIndex>, IndexReport) {
    let reason = "it did not open in time".to_owned();
    (None, IndexReport::InMemory { reason })
}

/// Makes the index durable under a token; `false` when it will have to be built again.
pub(super) fn checkpoint(tree: &TreeIndex, token: u64) -> bool {
    match catch_unwind(AssertUnwindSafe(|| tree.checkpoint(token))) {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(
                error = &*error as &dyn std::error::Error,
                "the index was not synced"
            );
            false
        }
        Err(_) => {
            tracing::warn!("the index panicked while it was synced");
            false
        }
    }
}

//! What an inspection names.

use std::path::Path;

use thiserror::Error;

use crate::store::Damage;
use crate::store::local::LocalConfig;
use crate::store::local::recovery::{Flaw, FlawKind};
use crate::store::local::segments::Segments;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the data folder.
    pub file: String,
    /// Where in it, bytes.
    pub position: Option<u64>,
    /// What it is.
    pub kind: FindingKind,
    /// The records that cannot be read because of it.
    pub lost: Option<Damage>,
}

/// What is wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FindingKind {
    /// Both slots of IDENTITY.
    #[error("the identity is damaged, a broker does not start on it; falcon salvage helps")]
    Identity,
    /// IDENTITY is gone while there are segments.
    #[error("the identity is missing, a broker does not start without it; falcon salvage helps")]
    IdentityMissing,
    /// One slot of IDENTITY.
    #[error("one of two copies of the identity is damaged, the next start mends it")]
    IdentitySlot,
    /// CLEAN cannot be read.
    #[error("the clean-stop marker is damaged, the next start checks more")]
    Marker,
    /// CLEAN and the journal disagree.
    #[error("the clean-stop marker says that the journal ends elsewhere")]
    MarkerEnd,
    /// A segment that was live at the last stop is not there.
    #[error("the segment is missing")]
    SegmentMissing,
    /// A segment of another journal.
    #[error("the segment belongs to another data folder")]
    SegmentForeign,
    /// A segment's header.
    #[error("the segment's header is damaged, its groups speak for themselves")]
    SegmentHeader,
    /// A seal slot.
    #[error("the seal slot is damaged, the segment is read instead")]
    Seal,
    /// A footer.
    #[error("the footer is damaged, the segment is read instead")]
    Footer,
    /// A footer that is whole and wrong.
    #[error("the footer does not say what the segment holds")]
    FooterContent,
    /// Sequences of segments that follow each other.
    #[error("commit {found} follows commit {expected} was due")]
    Sequence {
        /// The sequence due.
        expected: u64,
        /// The sequence there.
        found: u64,
    },
    /// Bytes that are no commit groups any more.
    #[error("{bytes} bytes of commit groups are damaged, what proves itself in them is kept")]
    Rot {
        /// How many.
        bytes: u64,
    },
    /// An entry of a whole group.
    #[error("a commit group holds an entry that cannot be read")]
    Entry,
    /// Records that are not there or not whole.
    #[error("records are damaged")]
    Records,
    /// The device did not give the bytes.
    #[error("the device cannot read {bytes} bytes")]
    Unreadable {
        /// How many, at most.
        bytes: u64,
    },
    /// The index.
    #[error("the index is damaged ({0}), no record is lost; remove the folder, it is built again")]
    Index(String),
}

impl FindingKind {
    /// A name for programs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::IdentityMissing => "identity_missing",
            Self::IdentitySlot => "identity_slot",
            Self::Marker => "marker",
            Self::MarkerEnd => "marker_end",
            Self::SegmentMissing => "segment_missing",
            Self::SegmentForeign => "segment_foreign",
            Self::SegmentHeader => "segment_header",
            Self::Seal => "seal",
            Self::Footer => "footer",
            Self::FooterContent => "footer_content",
            Self::Sequence { .. } => "sequence",
            Self::Rot { .. } => "rot",
            Self::Entry => "entry",
            Self::Records => "records",
            Self::Unreadable { .. } => "unreadable",
            Self::Index(_) => "index",
        }
    }
}

impl Finding {
    pub(super) fn new(data_dir: &Path, path: &Path, kind: FindingKind) -> Self {
        let below = path.strip_prefix(data_dir).unwrap_or(path);
        Self {
            file: below.display().to_string(),
            position: None,
            kind,
            lost: None,
        }
    }

    #[must_use]
    pub(super) fn at(mut self, position: u64) -> Self {
        self.position = Some(position);
        self
    }

    #[must_use]
    pub(super) fn losing(mut self, lost: Damage) -> Self {
        self.lost = Some(lost);
        self
    }

    /// Damaged batches are named with the offsets that are missing for it, not twice.
    pub(super) fn of_flaw(flaw: &Flaw, config: &LocalConfig, segments: &Segments) -> Option<Self> {
        let kind = match flaw.kind {
            FlawKind::Rot { bytes } => FindingKind::Rot { bytes },
            FlawKind::Entry => FindingKind::Entry,
            FlawKind::Batch(_) => return None,
        };
        let path = segments.path(flaw.segment);
        Some(Self::new(&config.data_dir, &path, kind).at(flaw.position))
    }
}

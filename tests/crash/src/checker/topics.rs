//! Topics that come and go: what was created exists until it is deleted, and then never again.
//!
//! A name has one owner, so that the entries of a name are in the order in which things happened, and
//! after an unknown outcome it looks before it goes on. A
//! *life* of a name is a topic from its creation to its deletion, known by its number. Kept are, of
//! each name, what is known about its present life and the records of that life; and every number.

use std::collections::{HashMap, HashSet};

use super::verdict::{Verdict, Violation};
use crate::history::{Entry, NO_TOPIC, Op, Outcome, ValueId};

#[derive(Debug, Default)]
pub(super) struct TopicRules {
    names: HashMap<u32, Name>,
    /// The name and the life that a number belongs to.
    numbers: HashMap<u32, (u32, u32)>,
    /// Which publishers sent to short-lived topics.
    publishers: HashMap<u32, u32>,
}

/// What is known about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Known {
    #[default]
    Absent,
    /// The topic of this number.
    There(u32),
    /// Nothing, or a topic whose number nobody was told.
    MayBeCreated,
    /// The topic of this number, or nothing.
    MayBeDeleted(u32),
}

#[derive(Debug, Default)]
struct Name {
    known: Known,
    /// Counts the topics of this name.
    life: u32,
    partitions: u16,
    /// The setting that was acknowledged last, and those of unknown outcome since.
    settings: Vec<u64>,
    /// What was asked for by a creation of unknown outcome.
    asked: Option<(u16, u64)>,
    /// Sequences sent to this life, by publisher.
    sent: HashMap<u32, u32>,
    refused: HashSet<ValueId>,
    logs: HashMap<u16, Log>,
}

/// A partition of the present life.
#[derive(Debug, Default)]
struct Log {
    /// What was acknowledged or read, by offset.
    known: HashMap<u64, ValueId>,
    /// Where each value of `known` is.
    places: HashMap<ValueId, u64>,
    /// Behind the last of `known`.
    end: u64,
    /// Next offset of the read under way.
    due: u64,
    /// Last sequences in the read under way.
    last: HashMap<u32, u32>,
}

impl TopicRules {
    /// Somebody sent a value to a short-lived topic.
    pub(super) fn announce(&mut self, entry: &Entry) {
        self.publishers.insert(entry.value.publisher, entry.actor);
    }

    /// An operation on a topic itself.
    pub(super) fn change(&mut self, entry: &Entry, verdict: &mut Verdict) {
        let known = self.names.entry(entry.actor).or_default().known;
        match (entry.op, entry.outcome) {
            (_, Outcome::Failed) => {}
            (Op::CreateTopic, Outcome::Ok) => {
                if let Known::There(before) = known {
                    verdict.add(Violation::TopicLost, entry, || {
                        format!("topic {before} was there, and could be created again")
                    });
                }
                self.begin(entry, verdict);
            }
            (Op::CreateTopic, Outcome::Unknown) => {
                let name = self.names.entry(entry.actor).or_default();
                if known == Known::Absent {
                    name.known = Known::MayBeCreated;
                }
                name.asked = Some((entry.partition, entry.offset));
            }
            (Op::DeleteTopic, Outcome::Ok) => {
                if known == Known::Absent {
                    verdict.add(Violation::TopicReturned, entry, || {
                        "it was not there, and could be deleted".into()
                    });
                }
                self.names.entry(entry.actor).or_default().known = Known::Absent;
            }
            (Op::DeleteTopic, Outcome::Unknown) => {
                if let Known::There(number) = known {
                    self.names.entry(entry.actor).or_default().known = Known::MayBeDeleted(number);
                }
            }
            (Op::AlterTopic, outcome) => {
                let name = self.names.entry(entry.actor).or_default();
                if outcome == Outcome::Ok {
                    name.settings.clear();
                }
                name.settings.push(entry.offset);
            }
            _ => self.see(entry, known, verdict),
        }
    }

    /// A topic was looked for.
    fn see(&mut self, entry: &Entry, known: Known, verdict: &mut Verdict) {
        let found = entry.value.publisher;
        match known {
            Known::There(number) if found == number => self.compare(entry, verdict),
            Known::There(number) => verdict.add(Violation::TopicLost, entry, || {
                format!("topic {number} was there")
            }),
            Known::MayBeDeleted(number) if found == number => self.compare(entry, verdict),
            Known::Absent | Known::MayBeCreated | Known::MayBeDeleted(_) if found == NO_TOPIC => {}
            Known::MayBeCreated => {}
            Known::Absent | Known::MayBeDeleted(_) => {
                verdict.add(Violation::TopicReturned, entry, || {
                    format!("a topic is there, known was: {known:?}")
                });
            }
        }
        let name = self.names.entry(entry.actor).or_default();
        let is_same = matches!(known, Known::There(n) | Known::MayBeDeleted(n) if n == found);
        if found == NO_TOPIC {
            // A creation that is under way for longer than its client waits may still come.
            if known != Known::MayBeCreated {
                name.known = Known::Absent;
            }
        } else if is_same {
            name.known = Known::There(found);
        } else {
            let asked = name.asked;
            self.begin(entry, verdict);
            if known == Known::MayBeCreated && asked != Some((entry.partition, entry.offset)) {
                verdict.add(Violation::TopicSettings, entry, || {
                    format!("{asked:?} was asked for, partitions and setting")
                });
            }
        }
    }

    /// The name's topic is one that was not known.
    fn begin(&mut self, entry: &Entry, verdict: &mut Verdict) {
        let name = self.names.entry(entry.actor).or_default();
        let number = entry.value.publisher;
        *name = Name {
            known: Known::There(number),
            life: name.life + 1,
            partitions: entry.partition,
            settings: vec![entry.offset],
            ..Name::default()
        };
        let owner = (entry.actor, name.life);
        if let Some(before) = self.numbers.insert(number, owner) {
            verdict.add(Violation::TopicNumberReused, entry, || {
                format!("name {} had it in its life {}", before.0, before.1)
            });
        }
    }

    /// The name's topic is the one that was known.
    fn compare(&mut self, entry: &Entry, verdict: &mut Verdict) {
        let name = self.names.entry(entry.actor).or_default();
        let is_known = name.settings.contains(&entry.offset);
        if !is_known || name.partitions != entry.partition {
            let (partitions, settings) = (name.partitions, &name.settings);
            verdict.add(Violation::TopicSettings, entry, || {
                format!("it has to have {partitions} partitions and one of {settings:?}")
            });
        }
        name.settings = vec![entry.offset];
    }

    /// An operation on the records of a topic.
    pub(super) fn record(&mut self, entry: &Entry, verdict: &mut Verdict) {
        let name = self.names.entry(entry.actor).or_default();
        let log = name.logs.entry(entry.partition).or_default();
        match (entry.op, entry.outcome) {
            (Op::TopicPublish, outcome) => {
                let end = name.sent.entry(entry.value.publisher).or_default();
                *end = entry.value.sequence.saturating_add(1).max(*end);
                match outcome {
                    Outcome::Ok => log.learn(entry, verdict),
                    Outcome::Failed => drop(name.refused.insert(entry.value)),
                    Outcome::Unknown => {}
                }
            }
            (Op::TopicRead, _) => {
                let ValueId {
                    publisher,
                    sequence,
                } = entry.value;
                let is_own = name.sent.get(&publisher).is_some_and(|end| sequence < *end);
                if name.refused.contains(&entry.value) {
                    verdict.add(Violation::Phantom, entry, || {
                        "it was refused, and is in the topic".into()
                    });
                } else if is_own {
                    log.read(entry, verdict);
                } else if self.publishers.contains_key(&publisher) {
                    verdict.add(Violation::TopicMixed, entry, || {
                        "it was sent to another topic, or to an older one of this name".into()
                    });
                } else {
                    verdict.add(Violation::Phantom, entry, || {
                        "nobody published what is in this topic".into()
                    });
                }
            }
            (_, outcome) => log.end_read(entry, outcome, verdict),
        }
    }
}

impl Log {
    /// A value was acknowledged, or read: it stays where it is.
    fn learn(&mut self, entry: &Entry, verdict: &mut Verdict) {
        if let Some(other) = self.known.insert(entry.offset, entry.value)
            && other != entry.value
        {
            verdict.add(Violation::OffsetMismatch, entry, || {
                format!("the topic had {other:?} at this offset")
            });
        }
        if let Some(other) = self.places.insert(entry.value, entry.offset)
            && other != entry.offset
        {
            verdict.add(Violation::Duplicate, entry, || {
                format!("the topic had the value at offset {other}")
            });
        }
        self.end = self.end.max(entry.offset.saturating_add(1));
    }

    fn read(&mut self, entry: &Entry, verdict: &mut Verdict) {
        if entry.offset != self.due {
            let due = self.due;
            let violation = if entry.offset > due {
                Violation::Gap
            } else {
                Violation::Duplicate
            };
            verdict.add(violation, entry, || format!("offset {due} was due"));
        }
        self.due = entry.offset.saturating_add(1).max(self.due);
        let last = self.last.entry(entry.value.publisher).or_default();
        if entry.value.sequence < *last {
            let before = *last;
            verdict.add(Violation::Reordered, entry, || {
                format!("sequence {before} of the same publisher comes before it")
            });
        }
        *last = entry.value.sequence.max(*last);
        self.learn(entry, verdict);
    }

    fn end_read(&mut self, entry: &Entry, outcome: Outcome, verdict: &mut Verdict) {
        let due = std::mem::take(&mut self.due);
        self.last.clear();
        if outcome == Outcome::Ok && due < self.end {
            let missing = self.end - due;
            verdict.add(Violation::Lost, entry, || {
                format!("{missing} records acknowledged or read before are not in the topic")
            });
        }
    }
}

//! Balanced shares, with as little movement as possible.
//!
//! Topics with the same subscribers form a class: inside it, a partition is as good as any other. What
//! somebody has stays, what nobody has goes to who has least, then single partitions go from who
//! has most to who has least until that gains nothing. Each move lowers the sum of the squared
//! shares, so it ends; and no subscriber has two more than another with the same topics.

use std::collections::{BTreeMap, BTreeSet};

use falcon_protocol::{PartitionId, TopicId};

use super::{Assignment, Question};

pub(super) fn assign(question: &Question) -> Assignment {
    let mut shares = Shares::of(question);
    shares.keep_and_fill(question);
    while shares.level() {}
    shares.into_assignment()
}

/// Topics with the same readers.
struct Class {
    topics: Vec<TopicId>,
    /// Readers by what they have of all classes together.
    by_load: BTreeSet<(usize, usize)>,
    /// What each reader has of this class.
    held: BTreeMap<usize, BTreeSet<PartitionId>>,
}

struct Shares {
    classes: Vec<Class>,
    /// By subscriber: the classes it reads.
    reads: Vec<Vec<usize>>,
    /// By subscriber: how many partitions it has.
    loads: Vec<usize>,
}

impl Shares {
    fn of(question: &Question) -> Self {
        let mut by_readers: BTreeMap<Vec<usize>, Vec<TopicId>> = BTreeMap::new();
        for (topic, readers) in question.readers() {
            by_readers.entry(readers).or_default().push(topic);
        }
        let count = question.subscribers.len();
        let mut reads = vec![Vec::new(); count];
        let mut classes = Vec::with_capacity(by_readers.len());
        for (readers, topics) in by_readers {
            for reader in &readers {
                if let Some(reads) = reads.get_mut(*reader) {
                    reads.push(classes.len());
                }
            }
            classes.push(Class {
                topics,
                by_load: readers.into_iter().map(|reader| (0, reader)).collect(),
                held: BTreeMap::new(),
            });
        }
        let loads = vec![0; count];
        Self {
            classes,
            reads,
            loads,
        }
    }

    /// What somebody has stays; after that, what nobody has goes to who has least.
    fn keep_and_fill(&mut self, question: &Question) {
        let mut free = Vec::new();
        for class in 0..self.classes.len() {
            let topics = self.classes.get(class).map(|class| class.topics.clone());
            for topic in topics.unwrap_or_default() {
                for partition in question.partitions(topic) {
                    let owner = question.current.get(&partition).copied();
                    match owner.filter(|owner| self.can_read(*owner, class)) {
                        Some(owner) => self.give(class, partition, owner),
                        None => free.push((class, partition)),
                    }
                }
            }
        }
        for (class, partition) in free {
            let by_load = self.classes.get(class).map(|class| &class.by_load);
            if let Some(&(_, least)) = by_load.and_then(BTreeSet::first) {
                self.give(class, partition, least);
            }
        }
    }

    fn can_read(&self, subscriber: usize, class: usize) -> bool {
        let reads = self.reads.get(subscriber);
        reads.is_some_and(|reads| reads.binary_search(&class).is_ok())
    }

    fn give(&mut self, class: usize, partition: PartitionId, to: usize) {
        self.change_load(to, 1);
        if let Some(class) = self.classes.get_mut(class) {
            class.held.entry(to).or_default().insert(partition);
        }
    }

    fn change_load(&mut self, subscriber: usize, by: isize) {
        let Some(load) = self.loads.get_mut(subscriber) else {
            return;
        };
        let before = *load;
        *load = before.saturating_add_signed(by);
        for class in self.reads.get(subscriber).into_iter().flatten() {
            if let Some(class) = self.classes.get_mut(*class) {
                class.by_load.remove(&(before, subscriber));
                class.by_load.insert((*load, subscriber));
            }
        }
    }

    /// One pass over the classes; whether anything moved.
    fn level(&mut self) -> bool {
        let mut has_moved = false;
        for class in 0..self.classes.len() {
            while let Some((from, to)) = self.classes.get(class).and_then(Class::uneven) {
                let Some(partition) = self.take_last(class, from) else {
                    break;
                };
                self.give(class, partition, to);
                has_moved = true;
            }
        }
        has_moved
    }

    fn take_last(&mut self, class: usize, from: usize) -> Option<PartitionId> {
        let held = self.classes.get_mut(class)?.held.get_mut(&from)?;
        let partition = held.pop_last()?;
        self.change_load(from, -1);
        Some(partition)
    }

    fn into_assignment(self) -> Assignment {
        let held = self.classes.into_iter().flat_map(|class| class.held);
        held.flat_map(|(reader, partitions)| partitions.into_iter().map(move |id| (id, reader)))
            .collect()
    }
}

impl Class {
    /// Who has most and something of this class, and who has least, when a move evens them out.
    fn uneven(&self) -> Option<(usize, usize)> {
        let has_some = |reader: usize| self.held.get(&reader).is_some_and(|held| !held.is_empty());
        let &(least, to) = self.by_load.first()?;
        let mut from_most = self.by_load.iter().rev();
        let &(most, from) = from_most.find(|(_, reader)| has_some(*reader))?;
        (most > least + 1).then_some((from, to))
    }
}

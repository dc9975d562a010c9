//! Whole runs of partitions per topic.

use super::{Assignment, Question};

pub(super) fn assign(question: &Question) -> Assignment {
    let mut assignment = Assignment::new();
    for (topic, readers) in question.readers() {
        let partitions: Vec<_> = question.partitions(topic).collect();
        let (base, extra) = (
            partitions.len() / readers.len(),
            partitions.len() % readers.len(),
        );
        let mut left = partitions.into_iter();
        for (place, reader) in readers.into_iter().enumerate() {
            let share = base + usize::from(place < extra);
            assignment.extend(left.by_ref().take(share).map(|id| (id, reader)));
        }
    }
    assignment
}

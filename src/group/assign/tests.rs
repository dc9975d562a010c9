use proptest::prelude::*;

use super::*;

fn everybody(members: usize, topics: &[u32]) -> Question {
    let topics: BTreeMap<TopicId, u32> = (1..).map(TopicId).zip(topics.iter().copied()).collect();
    Question {
        subscribers: vec![topics.keys().copied().collect(); members],
        topics,
        current: BTreeMap::new(),
    }
}

fn shares(question: &Question, assignment: &Assignment) -> Vec<usize> {
    let mut shares = vec![0; question.subscribers.len()];
    for reader in assignment.values() {
        shares[*reader] += 1;
    }
    shares
}

fn moved(before: &Assignment, after: &Assignment) -> usize {
    let is_moved = |(id, reader): &(&PartitionId, &usize)| after.get(id) != Some(reader);
    before.iter().filter(is_moved).count()
}

#[test]
fn a_member_that_joins_takes_only_its_share() {
    let mut question = everybody(3, &[9]);
    let before = Assignor::Sticky.assign(&question);
    assert_eq!(shares(&question, &before), [3, 3, 3]);
    question.current.clone_from(&before);
    question.subscribers.push(question.subscribers[0].clone());
    let after = Assignor::Sticky.assign(&question);
    assert_eq!(moved(&before, &after), 2);
}

#[test]
fn what_a_gone_member_had_is_spread_and_nothing_else_moves() {
    let mut question = everybody(4, &[12, 4]);
    let before = Assignor::Sticky.assign(&question);
    question.current.clone_from(&before);
    question.subscribers[3].clear();
    let after = Assignor::Sticky.assign(&question);
    assert_eq!(moved(&before, &after), 4);
    assert_eq!(after.len(), 16);
}

#[test]
fn range_cuts_topics_with_equal_counts_alike() {
    let question = everybody(3, &[7, 7]);
    let assignment = Assignor::Range.assign(&question);
    for number in 0..7 {
        let readers = [1, 2].map(|topic| assignment[&PartitionId::new(topic, number)]);
        assert_eq!(readers[0], readers[1]);
    }
    let first: Vec<usize> = assignment.values().copied().take(7).collect();
    assert_eq!(first, [0, 0, 0, 1, 1, 2, 2]);
}

#[test]
fn a_hundred_members_share_a_thousand_partitions_at_once() {
    let mut question = everybody(100, &[100; 10]);
    question.current = Assignor::Sticky.assign(&question);
    question.subscribers.pop();
    let after = Assignor::Sticky.assign(&question);
    assert_eq!(after.len(), 1000);
    assert_eq!(moved(&question.current, &after), 10);
}

fn questions() -> impl Strategy<Value = Question> {
    let topics = proptest::collection::vec(0_u32..12, 1..6);
    let reads = proptest::collection::vec(proptest::collection::vec(any::<bool>(), 6), 0..8);
    let current = proptest::collection::vec((0_u32..8, 0_u32..14, 0_usize..10), 0..60);
    (topics, reads, current).prop_map(|(topics, reads, current)| {
        let mut question = everybody(0, &topics);
        let subscribed = |reads: Vec<bool>| {
            let wanted = (1..)
                .map(TopicId)
                .zip(reads)
                .filter(|(_, is_read)| *is_read);
            wanted.map(|(topic, _)| topic).collect()
        };
        question.subscribers = reads.into_iter().map(subscribed).collect();
        let owned = current.into_iter();
        question.current = owned
            .map(|(t, p, owner)| (PartitionId::new(t, p), owner))
            .collect();
        question
    })
}

proptest! {
    #[test]
    fn everything_that_can_be_read_is_read_by_one_who_wants_it(question in questions()) {
        for assignor in [Assignor::Sticky, Assignor::Range] {
            let assignment = assignor.assign(&question);
            for (topic, count) in &question.topics {
                let is_read = question.subscribers.iter().any(|reads| reads.contains(topic));
                for id in question.partitions(*topic) {
                    prop_assert_eq!(assignment.contains_key(&id), is_read);
                }
                let of_topic = assignment.keys().filter(|id| id.topic == *topic).count();
                prop_assert_eq!(of_topic, if is_read { *count as usize } else { 0 });
            }
            for (id, reader) in &assignment {
                prop_assert!(question.subscribers[*reader].contains(&id.topic));
            }
            prop_assert_eq!(&assignment, &assignor.assign(&question));
        }
    }

    #[test]
    fn sticky_shares_of_equals_differ_by_one_at_most(question in questions()) {
        let shares = shares(&question, &Assignor::Sticky.assign(&question));
        for (a, reads) in question.subscribers.iter().enumerate() {
            for (b, other) in question.subscribers.iter().enumerate() {
                prop_assert!(reads != other || shares[a] <= shares[b] + 1, "{shares:?}");
            }
        }
    }

    #[test]
    fn sticky_repeats_itself(question in questions()) {
        let first = Assignor::Sticky.assign(&question);
        let again = Question { current: first.clone(), ..question };
        prop_assert_eq!(Assignor::Sticky.assign(&again), first);
    }

    #[test]
    fn sticky_moves_no_more_than_it_must(
        members in 1_usize..9,
        partitions in 1_u32..40,
        owners in proptest::collection::vec(0_usize..12, 40),
    ) {
        let mut question = everybody(members, &[partitions]);
        let ids: Vec<PartitionId> = question.partitions(TopicId(1)).collect();
        question.current = ids.into_iter().zip(owners).filter(|(_, owner)| *owner < members).collect();
        let assignment = Assignor::Sticky.assign(&question);
        let had = shares(&question, &question.current);
        let (base, extra) = (partitions as usize / members, partitions as usize % members);
        // With shares of `base`, and `extra` of one more, the most that can stay where it is.
        let above = had.iter().filter(|had| **had > base).count();
        let stay: usize = had.iter().map(|had| (*had).min(base)).sum::<usize>() + above.min(extra);
        prop_assert_eq!(question.current.len() - moved(&question.current, &assignment), stay);
    }

    #[test]
    fn range_shares_differ_by_one_per_topic_and_are_runs(question in questions()) {
        let assignment = Assignor::Range.assign(&question);
        for (topic, readers) in question.readers() {
            let owners: Vec<usize> = question.partitions(topic).map(|id| assignment[&id]).collect();
            prop_assert!(owners.is_sorted());
            let counts = readers.iter().map(|r| owners.iter().filter(|o| *o == r).count());
            let counts: Vec<usize> = counts.collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
    }
}

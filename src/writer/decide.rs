//! Deciding on commands, in the order of the queue.

use super::command::Command;
use super::error::JournalError;
use super::run::{Room, Writer};
use crate::clock;
use crate::store::Purpose;

impl Writer {
    /// Decides on a command and queues its answer.
    ///
    /// A full disk stops publishes first: other changes are small and use the reserve.
    pub(super) fn admit(&mut self, command: Command, room: Room) {
        let now_ms = clock::now_unix_ms();
        let room = match command.purpose() {
            Purpose::Batches | Purpose::Copies => room.batches,
            Purpose::Rows => room.rows,
            Purpose::Freeing => room.freeing,
        };
        if let Err(refused) = room {
            return self.refuse(command, refused);
        }
        let Self {
            state,
            answers,
            views,
            ..
        } = self;
        match command {
            Command::Publish(publish) => {
                let result = state.publish(publish.partition, publish.batch, now_ms);
                answers.publish(publish.answer, result);
            }
            Command::Step(step, answer) => {
                answers.defer(answer, state.step(step, &views.offsets(), now_ms));
            }
            Command::CreateTopic(name, partitions, config, answer) => {
                let created = state.create_topic(name, partitions, &config, now_ms);
                answers.defer(answer, created);
            }
            Command::AlterTopic(change, answer) => answers.defer(answer, state.alter_topic(change)),
            Command::DeleteTopic(name, answer) => answers.defer(answer, state.delete_topic(name)),
            Command::InitProducer(name, answer) => {
                answers.defer(answer, state.init_producer(name, now_ms));
            }
            Command::CommitOffsets(commit, answer) => {
                let committed = state.commit_offsets(commit, &views.offsets(), now_ms);
                answers.defer(answer, committed);
            }
            Command::CommitOwned(commit, answer) => {
                let committed = state.commit_owned(commit, &views.offsets(), now_ms);
                answers.defer(answer, committed);
            }
            Command::ResetOffsets(commit, answer) => {
                let raised = state.reset_offsets(commit, &views.offsets(), now_ms);
                answers.defer(answer, raised);
            }
            Command::DeleteOffsets(group, topic, answer) => {
                let deleted = state.delete_offsets(group, topic, &views.offsets());
                answers.defer(answer, deleted);
            }
            Command::DeleteGroup(group, answer) => {
                answers.defer(answer, state.delete_group(group, &views.offsets()));
            }
            Command::Fence(group, wanted, answer) => {
                let fenced = state.fence(group, &wanted, &views.offsets());
                answers.defer(answer, fenced);
            }
            Command::Trim(trims) => state.trim(&trims),
            Command::ExpireProducers(before_ms) => state.expire_producers(before_ms),
            Command::Tidy(tidied) => self.tidied.push(tidied),
        }
    }

    /// Refuses a command before anything is decided.
    fn refuse(&mut self, command: Command, refused: JournalError) {
        let answers = &mut self.answers;
        match command {
            Command::Publish(publish) => answers.publish(publish.answer, Err(refused.into())),
            Command::Step(_, answer) => answers.refuse(answer, refused),
            Command::Trim(_) | Command::ExpireProducers(_) => {}
            Command::Tidy(tidied) => self.tidied.push(tidied),
            Command::CreateTopic(.., answer) => answers.refuse(answer, refused),
            Command::AlterTopic(_, answer) | Command::DeleteTopic(_, answer) => {
                answers.refuse(answer, refused);
            }
            Command::InitProducer(_, answer) => answers.refuse(answer, refused),
            Command::CommitOffsets(_, answer)
            | Command::CommitOwned(_, answer)
            | Command::DeleteOffsets(.., answer)
            | Command::DeleteGroup(_, answer) => answers.refuse(answer, refused),
            Command::ResetOffsets(_, answer) => answers.refuse(answer, refused),
            Command::Fence(.., answer) => answers.refuse(answer, refused),
        }
    }
}

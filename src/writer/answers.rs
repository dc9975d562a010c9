//! Answers that wait for the sync of their group.

use std::sync::Arc;

use super::command::{Answer, Appended, Flush, PublishAnswer};
use super::error::{JournalError, PublishError};

enum Pending {
    Publish(PublishAnswer, Result<Appended, PublishError>),
    Other(Box<dyn FnOnce(Result<(), JournalError>) + Send>),
}

/// Answers of one turn, in the order of its commands.
#[derive(Default)]
pub(super) struct Answers {
    pending: Vec<Pending>,
    /// Who has answers of this turn to send.
    flushes: Vec<Arc<dyn Flush>>,
}

impl Answers {
    /// The outcome of a publish, which is what there is most of.
    pub(super) fn publish(
        &mut self,
        answer: PublishAnswer,
        result: Result<Appended, PublishError>,
    ) {
        self.pending.push(Pending::Publish(answer, result));
    }

    /// Queues an answer. A refusal waits too: it may depend on a change of the same group.
    pub(super) fn defer<T, E>(&mut self, answer: Answer<T, E>, result: Result<T, E>)
    where
        T: Send + 'static,
        E: From<JournalError> + Send + 'static,
    {
        self.pending.push(Pending::Other(Box::new(move |journal| {
            answer(settle(journal, result));
        })));
    }

    /// Refuses a command before anything is decided.
    pub(super) fn refuse<T, E>(&mut self, answer: Answer<T, E>, refused: JournalError)
    where
        T: Send + 'static,
        E: From<JournalError> + Send + 'static,
    {
        self.defer(answer, Err(refused.into()));
    }

    /// Flushes these too, before those that have answers alone.
    pub(super) fn flush(&mut self, flushes: Vec<Arc<dyn Flush>>) {
        self.flushes = flushes;
    }

    /// Gives them all, now that it is known what became of the group; then they are sent, those for one
    /// peer at once.
    pub(super) fn give(&mut self, outcome: Result<(), JournalError>) {
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Other(answer) => answer(outcome),
                Pending::Publish(answer, result) => {
                    self.flushes.extend(answer.give(settle(outcome, result)));
                }
            }
        }
        let count = self.flushes.len();
        for flush in self.flushes.drain(..) {
            flush.flush(count);
        }
    }
}

/// An answer that is given when it is dropped: who waits for it must not wait for a thread that ended by a panic.
struct Sure<T, E: From<JournalError>>(Option<Answer<T, E>>);

impl<T, E: From<JournalError>> Drop for Sure<T, E> {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(JournalError::OutcomeUnknown.into()));
        }
    }
}

/// An answer that says "outcome unknown" when it is dropped.
pub(super) fn sure<T, E>(answer: Answer<T, E>) -> Answer<T, E>
where
    T: Send + 'static,
    E: From<JournalError> + Send + 'static,
{
    let mut sure = Sure(Some(answer));
    Box::new(move |result| {
        if let Some(answer) = sure.0.take() {
            answer(result);
        }
    })
}

fn settle<T, E: From<JournalError>>(
    journal: Result<(), JournalError>,
    result: Result<T, E>,
) -> Result<T, E> {
    match (journal, result) {
        (Ok(()), result) => result,
        (Err(_), Err(refused)) => Err(refused),
        (Err(failure), Ok(_)) => Err(failure.into()),
    }
}

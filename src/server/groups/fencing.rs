//! Between the coordinator's task and the writer.
//!
//! Promises: what is handed over is handed over in order; so many are under way that every answer has its
//! place, so the writer's thread never waits; the coordinator does not wait for the writer's queue.

use std::collections::VecDeque;

use falcon_protocol::{OwnerEpoch, PartitionId};
use tokio::sync::{mpsc, oneshot};

use super::ask::{Change, ChangeError};
use crate::group::coordinator::{FenceOutcome, Hold};
use crate::writer::{Command, Fenced, OffsetsError, WriterHandle};

/// LIMIT: commands of the coordinator that are under way to the writer and back.
const UNDER_WAY_MAX: usize = 64;
/// LIMIT: fences in one command, so that its rows fit into a commit group.
const FENCES_MAX: usize = 4096;

/// Who waits for a change.
pub(super) type Waiting = oneshot::Sender<Result<(), ChangeError>>;

/// A command, and who waits for it.
#[derive(Debug)]
pub(super) enum Job {
    Fence(String, Vec<(PartitionId, OwnerEpoch)>),
    Change(Change, Waiting),
}

/// What became of one.
#[derive(Debug)]
pub(super) enum Done {
    /// Fences of a group; with the reason when all were refused.
    Fences(String, Vec<FenceOutcome>, Option<OffsetsError>),
    /// A group's offsets were set; with the fences that were raised.
    Reset(
        String,
        Result<Vec<(PartitionId, OwnerEpoch)>, OffsetsError>,
        Waiting,
    ),
    Deleted(String, Result<(), OffsetsError>, Waiting),
}

/// The task's end of it.
#[derive(Debug)]
pub(super) struct Fencing {
    waiting: VecDeque<Job>,
    under_way: usize,
    jobs: mpsc::Sender<(Job, mpsc::Sender<Done>)>,
    done: mpsc::Sender<Done>,
}

/// Jobs on their way to the writer.
pub(super) type Jobs = mpsc::Receiver<(Job, mpsc::Sender<Done>)>;

impl Fencing {
    pub(super) fn new() -> (Self, Jobs, mpsc::Receiver<Done>) {
        let (jobs, to_hand_over) = mpsc::channel(UNDER_WAY_MAX);
        let (done, answers) = mpsc::channel(UNDER_WAY_MAX);
        let fencing = Self {
            waiting: VecDeque::new(),
            under_way: 0,
            jobs,
            done,
        };
        (fencing, to_hand_over, answers)
    }

    /// Makes fences durable; each is answered.
    pub(super) fn fence(&mut self, group: &str, holds: &[Hold]) {
        for part in holds.chunks(FENCES_MAX) {
            let wanted = part.iter().map(|hold| (hold.partition, hold.epoch));
            let job = Job::Fence(group.to_owned(), wanted.collect());
            self.waiting.push_back(job);
        }
        self.advance();
    }

    pub(super) fn change(&mut self, change: Change, waiting: Waiting) {
        self.waiting.push_back(Job::Change(change, waiting));
        self.advance();
    }

    /// One has come back.
    pub(super) fn came_back(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        self.advance();
    }

    fn advance(&mut self) {
        while self.under_way < UNDER_WAY_MAX {
            let Some(job) = self.waiting.pop_front() else {
                return;
            };
            self.under_way += 1;
            // There is room: no more are under way than there are places. Closed: it all ends.
            let _closed = self.jobs.try_send((job, self.done.clone()));
        }
    }
}

/// Hands jobs over to the writer, until there will be no more.
pub(super) async fn hand_over(mut jobs: Jobs, writer: WriterHandle) {
    while let Some((job, done)) = jobs.recv().await {
        if writer.send(command(job, done)).await.is_err() {
            return;
        }
    }
}

fn command(job: Job, done: mpsc::Sender<Done>) -> Command {
    // Every answer has a place; when the task is gone nobody wants it.
    let tell = move |what| drop(done.try_send(what));
    match job {
        Job::Fence(group, wanted) => {
            let asked = wanted.clone();
            let name = group.clone();
            let answer = move |result: Result<Vec<Fenced>, OffsetsError>| {
                let (fences, refused) = match result {
                    Ok(fences) => (Some(fences), None),
                    Err(error) => (None, Some(error)),
                };
                tell(Done::Fences(name, outcomes(asked, fences), refused));
            };
            Command::Fence(group, wanted, Box::new(answer))
        }
        Job::Change(Change::Reset(commit), waiting) => {
            let name = commit.group.clone();
            let answer = move |result| tell(Done::Reset(name, result, waiting));
            Command::ResetOffsets(commit, Box::new(answer))
        }
        Job::Change(Change::Delete(group), waiting) => {
            let name = group.clone();
            let answer = move |result| tell(Done::Deleted(name, result, waiting));
            Command::DeleteGroup(group, Box::new(answer))
        }
    }
}

/// An answer for each that was asked for; when the writer refused all, nothing is known of the fences.
fn outcomes(
    asked: Vec<(PartitionId, OwnerEpoch)>,
    fences: Option<Vec<Fenced>>,
) -> Vec<FenceOutcome> {
    let hold = |(partition, epoch)| Hold { partition, epoch };
    let asked = asked.into_iter().map(hold);
    let Some(fences) = fences else {
        let refused = |hold| FenceOutcome::Refused(hold, OwnerEpoch::default());
        return asked.map(refused).collect();
    };
    let outcome = |(hold, fenced): (Hold, Fenced)| {
        if fenced.is_granted {
            FenceOutcome::Durable(hold, fenced.committed)
        } else {
            FenceOutcome::Refused(hold, fenced.epoch)
        }
    };
    asked.zip(fences).map(outcome).collect()
}

//! Every step that a disk took, and what a power cut after each of them may leave.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::content::{Content, SECTOR};
use super::{NameChange, SimDisk, State, apply};

/// Something that changes what is on the disk or what survives.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Folder(PathBuf),
    File(u64),
    /// In this folder.
    Name(PathBuf, NameChange),
    Write(u64, usize, Vec<u8>),
    Resize(u64, usize),
    Sync(u64),
    /// A sync that failed or lied.
    SetAdrift(u64),
    SyncNames(PathBuf),
    /// Changes nothing: a remark of whoever uses the disk.
    Note(u64),
}

impl State {
    pub(super) fn take(&mut self, step: Step) {
        match &step {
            Step::Folder(path) => {
                self.dirs.insert(path.clone());
            }
            Step::File(id) => {
                self.contents.insert(*id, Content::default());
            }
            Step::Name(dir, change) => {
                apply(&mut self.names, change);
                self.names_unsynced.push((dir.clone(), change.clone()));
            }
            Step::Write(id, position, bytes) => {
                if let Some(content) = self.contents.get_mut(id) {
                    content.write(*position, bytes);
                }
            }
            Step::Resize(id, bytes) => {
                if let Some(content) = self.contents.get_mut(id) {
                    content.now.resize(*bytes, 0);
                }
            }
            Step::Sync(id) => {
                if let Some(content) = self.contents.get_mut(id) {
                    content.sync();
                }
            }
            Step::SetAdrift(id) => {
                if let Some(content) = self.contents.get_mut(id) {
                    content.set_adrift();
                }
            }
            Step::SyncNames(dir) => {
                let (synced, rest) = std::mem::take(&mut self.names_unsynced)
                    .into_iter()
                    .partition::<Vec<_>, _>(|(of, _)| of == dir);
                self.names_unsynced = rest;
                for (_, change) in &synced {
                    apply(&mut self.names_synced, change);
                }
            }
            Step::Note(_) => {}
        }
        if let Some(recorded) = &mut self.recorded {
            recorded.push(step);
        }
    }

    /// The disk with everything that was written, or with what was synced alone.
    fn image(&self, is_kept: bool) -> Self {
        let names = if is_kept {
            &self.names
        } else {
            &self.names_synced
        };
        let content = |id: &u64| {
            let content = self.contents.get(id)?;
            let image = if is_kept {
                content.kept()
            } else {
                content.lost()
            };
            Some((*id, image))
        };
        Self {
            contents: names.values().filter_map(content).collect(),
            names: names.clone(),
            names_synced: names.clone(),
            dirs: self.dirs.clone(),
            free_bytes: self.free_bytes,
            ..Self::default()
        }
    }
}

impl SimDisk {
    /// Keeps every step from here on; the disk must be empty still.
    pub fn record(&self) {
        self.state().recorded = Some(Vec::new());
    }

    /// Puts a remark between the steps that are recorded.
    pub fn note(&self, note: u64) {
        self.state().take(Step::Note(note));
    }

    /// What was recorded.
    pub fn recording(&self) -> Recording {
        let steps = self.state().recorded.take().unwrap_or_default();
        Recording {
            steps: steps.into_iter(),
            disk: State::default(),
        }
    }
}

impl From<State> for SimDisk {
    fn from(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
            gate: Arc::default(),
        }
    }
}

/// What a disk did, to be gone through step by step.
#[derive(Debug)]
pub struct Recording {
    steps: std::vec::IntoIter<Step>,
    /// As it is after the steps so far.
    disk: State,
}

/// What one step was.
#[derive(Debug)]
pub struct Moment {
    /// The remark, if it was one.
    pub note: Option<u64>,
    /// What a power cut right after the step, or in the middle of a write, may leave: with all
    /// earlier steps and every number of whole sectors of the write; with what was synced alone;
    /// with the write and nothing else that was not synced; and with random sectors and names.
    pub images: Vec<SimDisk>,
}

impl Recording {
    /// How many steps are left.
    pub fn steps_left(&self) -> usize {
        self.steps.len()
    }

    /// Takes the next step; `randoms` is how many images with random survivors are wanted.
    pub fn step(&mut self, random: &mut fastrand::Rng, randoms: usize) -> Option<Moment> {
        let step = self.steps.next()?;
        let mut images = Vec::new();
        if let Step::Note(note) = step {
            return Some(Moment {
                note: Some(note),
                images,
            });
        }
        if let Step::Write(id, position, bytes) = &step {
            let first = SECTOR - position % SECTOR;
            for arrived in (first..bytes.len()).step_by(SECTOR) {
                let arrived = bytes.get(..arrived).unwrap_or_default().to_vec();
                let mut image = self.disk.image(true);
                image.take(Step::Write(*id, *position, arrived));
                images.push(image.image(true).into());
            }
            let mut image = self.disk.image(false);
            image.take(step.clone());
            images.push(image.image(true).into());
        }
        self.disk.take(step);
        images.push(self.disk.image(true).into());
        images.push(self.disk.image(false).into());
        for _ in 0..randoms {
            images.push(self.disk.crash(random).into());
        }
        Some(Moment { note: None, images })
    }
}

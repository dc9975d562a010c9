//! Members of groups, each a process of its own.
//!
//! Owns the processes: they end when this is dropped, frozen ones too. Writes down when each of them lived, as
//! far as its group can tell. Promises: what a member says about itself carries its own time, so it does not
//! matter when it is heard.
//!
//! Must not know: which trouble comes when, and what members do.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::member::Mode;
use crate::error::CrashError;
use crate::history::{Entry, GroupPlace, Op, Outcome, ValueId, mend, now_ns};
use crate::process::lines_of;

/// Who they are, where they go.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) address: String,
    pub(super) folder: PathBuf,
    pub(super) session: Duration,
    /// Whether members commit what they have not handled: they must be found out.
    pub(super) is_hasty: bool,
    members: Vec<Member>,
    started: u32,
    /// When members lived.
    pub(super) lives: Vec<Entry>,
    /// Of all members there ever were.
    pub(super) files: Vec<PathBuf>,
    pub(super) complaints: Vec<String>,
    /// Those whose instance name was taken over while they ran.
    pub(super) taken_over: u64,
    /// Epochs granted, with the groups.
    pub(super) epochs: std::collections::BTreeSet<(u16, u64)>,
}

/// A process.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) number: u32,
    pub(super) group: u16,
    pub(super) mode: Mode,
    pub(super) instance: Option<String>,
    child: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
    /// Since when its group can tell that it lives.
    alive_ns: Option<u64>,
    has_joined: bool,
    /// Until when it is frozen.
    thaw_ns: Option<u64>,
    /// Until when its handler stalls, as far as the rig knows.
    pub(super) stalled_ns: u64,
    is_leaving: bool,
}

impl Member {
    /// Whether it has joined, is not frozen, and is not on its way out.
    pub(super) const fn is_at_work(&self) -> bool {
        self.alive_ns.is_some() && !self.is_leaving
    }

    pub(super) const fn is_frozen(&self) -> bool {
        self.thaw_ns.is_some()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself; whoever waits for it finds out.
            kill_process(pid, signal).ok();
        }
    }

    fn life(&self, until: u64) -> Option<Entry> {
        Some(Entry {
            op: Op::Alive,
            outcome: Outcome::Ok,
            partition: GroupPlace::log(0, 0).of(self.group).0,
            actor: self.number,
            value: ValueId::FOREIGN,
            offset: 0,
            invoked_ns: self.alive_ns?,
            completed_ns: until,
        })
    }
}

impl Crew {
    pub(super) fn new(address: String, folder: PathBuf, session: Duration) -> Self {
        Self {
            address,
            folder,
            session,
            is_hasty: false,
            members: Vec::new(),
            started: 0,
            lives: Vec::new(),
            files: Vec::new(),
            complaints: Vec::new(),
            taken_over: 0,
            epochs: std::collections::BTreeSet::new(),
        }
    }

    /// Starts a member, and does not wait until it has joined.
    #[expect(
        clippy::disallowed_methods,
        reason = "the log is a file of the test, outside the broker and its io door"
    )]
    pub(super) fn start(
        &mut self,
        group: u16,
        mode: Mode,
        instance: Option<String>,
    ) -> Result<u32, CrashError> {
        let number = self.started;
        self.started += 1;
        let history = self.folder.join(format!("member-{number:05}.history"));
        let log = self.folder.join("members.log");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(CrashError::io("open", &log))?;
        let program = std::env::current_exe();
        let program = program.map_err(CrashError::io("find", &PathBuf::from("this program")))?;
        let mut command = Command::new(&program);
        command
            .arg("member")
            .args(["--address", &self.address])
            .args(["--number", &number.to_string()])
            .args(["--group", &group.to_string()])
            .args(["--mode", mode.name()])
            .args(["--session-ms", &self.session.as_millis().to_string()])
            .arg("--history")
            .arg(&history);
        if let Some(instance) = &instance {
            command.args(["--instance", instance]);
        }
        if self.is_hasty {
            command.arg("--hasty");
        }
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn();
        let mut child = child.map_err(CrashError::io("start", &program))?;
        let (Some(commands), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(CrashError::Program("a member without pipes".into()));
        };
        let lines = lines_of(stdout)?;
        self.files.push(history);
        self.members.push(Member {
            number,
            group,
            mode,
            instance,
            child,
            commands,
            lines,
            alive_ns: None,
            has_joined: false,
            thaw_ns: None,
            stalled_ns: 0,
            is_leaving: false,
        });
        Ok(number)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    pub(super) fn started(&self) -> u32 {
        self.started
    }

    fn place(&self, number: u32) -> Option<usize> {
        let mut members = self.members.iter();
        members.position(|member| member.number == number)
    }

    fn find(&mut self, number: u32) -> Option<&mut Member> {
        let mut members = self.members.iter_mut();
        members.find(|member| member.number == number)
    }

    /// Ends a member without warning.
    pub(super) fn kill(&mut self, number: u32) {
        if let Some(place) = self.place(number) {
            self.hear(place);
            let mut member = self.members.swap_remove(place);
            let now = now_ns();
            self.lives.extend(member.life(now));
            member.child.kill().ok();
            member.child.wait().ok();
        }
    }

    /// Asks a member to leave, and does not wait.
    pub(super) fn leave(&mut self, number: u32) {
        if let Some(member) = self.find(number) {
            member.is_leaving = true;
            // It may have ended by itself.
            writeln!(member.commands, "leave").ok();
        }
    }

    /// Lets a member's handler not return for so long.
    pub(super) fn stall(&mut self, number: u32, length: Duration) {
        if let Some(member) = self.find(number) {
            writeln!(member.commands, "stall {}", length.as_millis()).ok();
            let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
            member.stalled_ns = now_ns().saturating_add(length);
        }
    }

    /// Stops a process for so long, as a machine does that is suspended.
    pub(super) fn freeze(&mut self, number: u32, length: Duration) {
        let Some(place) = self.place(number) else {
            return;
        };
        self.hear(place);
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let Some(member) = self.members.get_mut(place) else {
            return;
        };
        let now = now_ns();
        member.signal(Signal::STOP);
        member.thaw_ns = Some(now.saturating_add(length));
        self.lives.extend(member.life(now));
        member.alive_ns = None;
    }

    /// Hears what members said, wakes up whose time has come, and notices who ended.
    pub(super) fn tick(&mut self) {
        let now = now_ns();
        self.thaw(|at| at <= now);
        for place in (0..self.members.len()).rev() {
            self.hear(place);
            let Some(member) = self.members.get_mut(place) else {
                continue;
            };
            let Ok(Some(status)) = member.child.try_wait() else {
                continue;
            };
            // What it said last.
            self.hear(place);
            let member = self.members.swap_remove(place);
            self.lives.extend(member.life(now_ns()));
            if !status.success() {
                let number = member.number;
                self.complaints
                    .push(format!("member {number} ended: {status}"));
            }
        }
    }

    fn thaw(&mut self, is_due: impl Fn(u64) -> bool) {
        for member in &mut self.members {
            if member.thaw_ns.is_some_and(&is_due) {
                member.thaw_ns = None;
                member.alive_ns = member.has_joined.then(now_ns);
                member.signal(Signal::CONT);
            }
        }
    }

    /// Takes in the lines of one member.
    fn hear(&mut self, place: usize) {
        let Some(member) = self.members.get_mut(place) else {
            return;
        };
        while let Ok(line) = member.lines.try_recv() {
            let mut words = line.splitn(3, ' ');
            let (word, number) = (words.next(), words.next());
            let number = number.and_then(|number| number.parse().ok());
            match (word, number) {
                (Some("joined"), Some(at)) => {
                    member.has_joined = true;
                    if !member.is_frozen() {
                        member.alive_ns = Some(at);
                    }
                }
                (Some("own"), Some(epoch)) => {
                    self.epochs.insert((member.group, epoch));
                }
                (Some("left"), Some(at)) => {
                    self.lives.extend(member.life(at));
                    member.alive_ns = None;
                    member.has_joined = false;
                }
                (Some("taken"), Some(at)) => {
                    self.lives.extend(member.life(at));
                    member.alive_ns = None;
                    member.has_joined = false;
                    member.is_leaving = true;
                    self.taken_over += 1;
                }
                _ => self
                    .complaints
                    .push(format!("member {}: {line}", member.number)),
            }
        }
    }

    /// Wakes up whoever is frozen.
    pub(super) fn thaw_all(&mut self) {
        self.thaw(|_| true);
    }

    /// Lets everybody leave in order; who does not within the time is told.
    pub(super) fn end(&mut self, deadline: Duration) {
        self.thaw_all();
        let numbers: Vec<u32> = self.members.iter().map(|member| member.number).collect();
        for number in numbers {
            self.leave(number);
        }
        let until = now_ns() + u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        while !self.members.is_empty() && now_ns() < until {
            self.tick();
            std::thread::sleep(Duration::from_millis(10));
        }
        for member in std::mem::take(&mut self.members) {
            self.complaints
                .push(format!("member {} does not leave", member.number));
        }
    }

    /// Makes the histories of killed members whole.
    pub(super) fn mend(&self) -> Result<(), CrashError> {
        // A member that was killed before it could write has none.
        let mut files = self.files.iter().filter(|path| path.exists());
        files.try_for_each(|path| mend(path))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

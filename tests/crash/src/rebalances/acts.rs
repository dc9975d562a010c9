//! Which trouble comes next, by the seed and what the group looks like.
//!
//! Knows members by number and state only. A group keeps two members at work, and has no more than its fill.

use std::time::Duration;

use fastrand::Rng;

use super::crew::{Crew, Member};
use super::member::{GROUPS, Mode};

/// Members of a group.
const LEAST: usize = 2;
const FILL: usize = 5;

/// Acts from one to the next of these.
const BROKER_EVERY: u32 = 29;
const TOPIC_EVERY: u32 = 19;

/// What the rig does to a group, or to all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// One more member.
    Join(u16, Mode, Option<String>),
    /// One leaves in order.
    Leave(u32),
    /// One ends without warning.
    Crash(u32),
    /// One stops for so long, and goes on as if nothing had been.
    Freeze(u32, Duration),
    /// A handler does not return for so long.
    Stall(u32, Duration),
    /// A member with a name ends without warning, and one of the same name comes.
    Restart(u32),
    /// One of the same name comes while the old one is there; at times the old one is frozen then.
    TakeOver(u32, Option<Duration>),
    /// The broker ends without warning, and comes back.
    KillBroker,
    /// A topic appears that the patterns of members fit.
    AddTopic,
}

impl Act {
    /// The figure that counts it.
    pub(super) const fn figure(&self) -> &'static str {
        match self {
            Self::Join(..) => "joins",
            Self::Leave(_) => "leaves",
            Self::Crash(_) => "crashes",
            Self::Freeze(..) => "freezes",
            Self::Stall(..) => "stalls",
            Self::Restart(_) | Self::TakeOver(..) => "static_restarts",
            Self::KillBroker => "broker_kills",
            Self::AddTopic => "topics_added",
        }
    }
}

/// All figures of acts.
pub(super) const FIGURES: [&str; 8] = [
    "joins",
    "leaves",
    "crashes",
    "freezes",
    "stalls",
    "static_restarts",
    "broker_kills",
    "topics_added",
];

/// A member for a group, with a name every second time.
pub(super) fn join(group: u16, crew: &Crew, random: &mut Rng) -> Act {
    let mode = match group {
        0 if random.bool() => Mode::Run,
        0 => Mode::Next,
        _ => Mode::Step,
    };
    let name = || format!("name-{}", crew.started());
    Act::Join(group, mode, random.bool().then(name))
}

/// The act of this number, from 1.
pub(super) fn choose(number: u32, crew: &Crew, session: Duration, random: &mut Rng) -> Act {
    // What concerns everybody is rare, and never left out.
    if number.is_multiple_of(BROKER_EVERY) {
        return Act::KillBroker;
    }
    if number.is_multiple_of(TOPIC_EVERY) {
        return Act::AddTopic;
    }
    choose_for_group(crew, session, random)
}

fn choose_for_group(crew: &Crew, session: Duration, random: &mut Rng) -> Act {
    let group = random.u16(0..GROUPS);
    let of_group = || crew.members().filter(|member| member.group == group);
    let at_work: Vec<&Member> = of_group().filter(|member| member.is_at_work()).collect();
    if of_group().count() < LEAST + 1 || (at_work.len() < FILL && random.u8(..) < 90) {
        return join(group, crew, random);
    }
    // Who is on the way does not help a group that would be left alone.
    if at_work.len() <= LEAST {
        return match of_group().count() {
            count if count < FILL + 2 => join(group, crew, random),
            _ => stall(&at_work, random),
        };
    }
    let Some(one) = random.choice(&at_work) else {
        return join(group, crew, random);
    };
    match random.u8(0..100) {
        0..=19 => Act::Crash(one.number),
        20..=37 => Act::Leave(one.number),
        38..=47 => Act::Freeze(one.number, part(session, (0.1, 0.7), random)),
        48..=59 => Act::Freeze(one.number, part(session, (1.2, 2.5), random)),
        60..=71 => stall(&at_work, random),
        _ => again(&at_work, session, random).unwrap_or(Act::Crash(one.number)),
    }
}

/// Longer than a partition may stand still.
fn stall(at_work: &[&Member], random: &mut Rng) -> Act {
    let length = part(Duration::from_secs(1), (2.5, 6.0), random);
    let number = random.choice(at_work).map_or(0, |member| member.number);
    Act::Stall(number, length)
}

fn again(at_work: &[&Member], session: Duration, random: &mut Rng) -> Option<Act> {
    let named = at_work.iter().filter(|member| member.instance.is_some());
    let named: Vec<_> = named.collect();
    let number = random.choice(&named)?.number;
    Some(match random.u8(0..4) {
        0 => Act::TakeOver(number, None),
        1 => Act::TakeOver(number, Some(part(session, (0.3, 1.8), random))),
        _ => Act::Restart(number),
    })
}

/// Between so many times as much.
fn part(of: Duration, (least, most): (f64, f64), random: &mut Rng) -> Duration {
    of.mul_f64(least + random.f64() * (most - least))
}

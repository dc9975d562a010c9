//! From what the broker knows of a partition to a sentence.

use falcon_client::{
    Activity, ErrorCode, GroupMember, GroupPartition, GroupProgress, MemberId, Offset, Standing,
};

use crate::cli::group::{lag, name, seconds};

/// How a partition of a group does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnosis {
    /// A word, for scripts.
    pub(crate) state: &'static str,
    /// A sentence, for people.
    pub(crate) text: String,
}

fn diagnosis(state: &'static str, text: impl Into<String>) -> Diagnosis {
    let text = text.into();
    Diagnosis { state, text }
}

impl Diagnosis {
    /// Of one partition; `members` are all of the group.
    pub(crate) fn of(row: &GroupPartition, members: &[GroupMember]) -> Self {
        let who = |id: MemberId| who(id, members);
        match row.standing {
            Standing::Unwanted if members.is_empty() => {
                let text = format!("the group has no members; {}", behind(row));
                diagnosis("no_member", text)
            }
            Standing::Unwanted => {
                let text = format!("no member subscribes to it; {}", behind(row));
                diagnosis("unwanted", text)
            }
            Standing::Waiting { target, for_ms } => diagnosis(
                "waiting",
                format!(
                    "waits for its former owner at most {} more, then {} gets it",
                    seconds(for_ms),
                    who(target)
                ),
            ),
            Standing::Fencing { since_ms } => diagnosis(
                "fencing",
                format!(
                    "its new owner is being written down, since {}; if that lasts, see /readyz",
                    seconds(since_ms)
                ),
            ),
            Standing::Granted { owner, .. } => silent(owner, members).unwrap_or_else(|| {
                diagnosis(
                    "granted",
                    format!("granted to {}, which has not taken it in yet", who(owner)),
                )
            }),
            Standing::GivingUp {
                owner,
                target,
                for_ms,
            } => {
                let next = target.map_or_else(
                    || "nobody wants it".into(),
                    |id| format!("{} gets it", who(id)),
                );
                let doing = row.progress.as_ref().map_or_else(String::new, doing);
                let text = format!(
                    "moving: {} gives it up{doing}, and loses it in {}; then {next}",
                    who(owner),
                    seconds(for_ms)
                );
                diagnosis("giving_up", text)
            }
            Standing::Held { owner, .. } => {
                silent(owner, members).unwrap_or_else(|| held(row, &who(owner)))
            }
        }
    }
}

/// A partition whose owner is heard.
fn held(row: &GroupPartition, owner: &str) -> Diagnosis {
    let progress = row.progress.as_ref();
    let since = seconds(progress.map_or(0, |progress| progress.since_ms));
    let activity = progress.map(|progress| progress.activity);
    match activity {
        Some(Activity::Damaged(from, to)) => return damaged(owner, from, to),
        Some(Activity::Failing(code)) => {
            let code = ErrorCode::from_number(code).map_or("success", ErrorCode::name);
            let text =
                format!("reading fails at {owner} with {code} since {since}, and is tried again");
            return diagnosis("failing", text);
        }
        Some(Activity::Paused) => {
            let text = format!(
                "paused by the application of {owner} since {since}; {}",
                behind(row)
            );
            return diagnosis("paused", text);
        }
        Some(Activity::Full) => {
            let text = format!(
                "the application of {owner} has not taken records for {since}, so no more are asked for; {}",
                behind(row)
            );
            return diagnosis("full", text);
        }
        Some(Activity::Handling | Activity::Reading) | None => {}
    }
    if lag(row) == 0 {
        let text = format!(
            "all is read: {owner} waits for records at offset {}",
            row.high_watermark
        );
        return diagnosis("done", text);
    }
    let at = progress.map_or_else(|| row.committed.unwrap_or(row.log_start), |p| p.position);
    if let Some((from, to)) = row.damaged
        && (from..to).contains(&at)
    {
        return damaged(owner, from, to);
    }
    match progress {
        Some(GroupProgress {
            activity: Activity::Handling,
            ..
        }) => {
            let offset = row.committed.unwrap_or(row.log_start);
            let text = format!(
                "{owner} handles offset {offset} since {since}; {}",
                behind(row)
            );
            diagnosis("handling", text)
        }
        Some(progress) => {
            let text = format!(
                "moves: {owner} reads at offset {}; {}",
                progress.position,
                behind(row)
            );
            diagnosis("moving", text)
        }
        None => {
            let text = format!(
                "{owner} has it and has not said how far it is; {}",
                behind(row)
            );
            diagnosis("held", text)
        }
    }
}

fn damaged(owner: &str, from: Offset, to: Offset) -> Diagnosis {
    let text = format!(
        "offsets {from} to {to} are damaged and {owner} stands before them; falcon group reset skips them"
    );
    diagnosis("damaged", text)
}

fn doing(progress: &GroupProgress) -> String {
    match progress.activity {
        Activity::Handling => format!(
            " after what it handles since {}",
            seconds(progress.since_ms)
        ),
        Activity::Reading
        | Activity::Full
        | Activity::Paused
        | Activity::Damaged(..)
        | Activity::Failing(_) => String::new(),
    }
}

/// A member that was heard within half of its session does: it is answered after a third.
fn silent(id: MemberId, members: &[GroupMember]) -> Option<Diagnosis> {
    let member = members.iter().find(|member| member.member == id)?;
    if member.silent_ms <= member.session_ms / 2 {
        return None;
    }
    let text = format!(
        "member {} is silent for {} (session {}): it is let go when that is over",
        name(member),
        seconds(member.silent_ms),
        seconds(member.session_ms)
    );
    Some(diagnosis("silent", text))
}

fn who(id: MemberId, members: &[GroupMember]) -> String {
    let member = members.iter().find(|member| member.member == id);
    member.map_or_else(
        || format!("member {id}"),
        |member| format!("member {}", name(member)),
    )
}

fn behind(row: &GroupPartition) -> String {
    let records = lag(row);
    if records == 0 {
        return "all is read".into();
    }
    let age = row.lag_ms.map_or_else(String::new, |ms| {
        format!(", the first of them {} old", seconds(ms))
    });
    let noun = if records == 1 { "record" } else { "records" };
    format!("{records} {noun} behind{age}")
}

#[cfg(test)]
mod tests;

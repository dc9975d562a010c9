//! Requests of members: join, report, leave, commit.

use std::sync::Arc;

use falcon_protocol::ids::check_group_name;
use falcon_protocol::limits::OFFSETS_ENTRIES_MAX;
use falcon_protocol::message::{
    self, AssignorKind, CommitOwned, Empty, GroupGrant, GroupHold, GroupNews, GroupReport,
    JoinGroup, LeaveGroup,
};
use falcon_protocol::{ErrorCode, Kind};
use tokio::sync::oneshot;

use super::ask::{Ask, Said, Spoken};
use crate::catalog::Catalog;
use crate::group::assign::Assignor;
use crate::group::coordinator::{Hold, News, Report, Wish};
use crate::group::pattern::{Pattern, PatternError};
use crate::server::connection::Connection;
use crate::server::refusal::Refusal;
use crate::writer::{Command, Views};

impl Connection {
    pub(in crate::server) async fn join_group(
        &mut self,
        correlation: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let request: JoinGroup = message::decode(body)?;
        check_group(&request.report.group)?;
        let patterns = request.patterns.iter().map(|text| text.parse());
        let patterns = patterns.collect::<Result<Vec<Pattern>, PatternError>>()?;
        let wish = Wish {
            instance: request.instance,
            patterns,
            assignor: assignor(request.assignor),
            session_ms: request.session_ms,
        };
        let (report, spoken) = self.spoken(request.report);
        let said = Said::Join(report, wish, spoken);
        self.poll(Kind::JoinGroup, correlation, said).await
    }

    pub(in crate::server) async fn group_report(
        &mut self,
        correlation: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let request: GroupReport = message::decode(body)?;
        let (report, spoken) = self.spoken(request);
        let said = Said::Heartbeat(report, spoken);
        self.poll(Kind::GroupReport, correlation, said).await
    }

    pub(in crate::server) async fn leave_group(
        &mut self,
        correlation: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let request: LeaveGroup = message::decode(body)?;
        let said = Said::Leave(request.group, request.member);
        self.poll(Kind::LeaveGroup, correlation, said).await
    }

    pub(in crate::server) async fn commit_owned(
        &mut self,
        correlation: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let commit: CommitOwned = message::decode(body)?;
        if commit.offsets.is_empty() || commit.offsets.len() > OFFSETS_ENTRIES_MAX {
            let text = format!("1 to {OFFSETS_ENTRIES_MAX} offsets can be committed at a time");
            return Err(Refusal::new(ErrorCode::MalformedRequest, text));
        }
        let answer = self
            .deferred(Kind::CommitOwned, correlation, |()| Empty {})
            .await;
        self.change(Command::CommitOwned(commit, answer)).await
    }

    fn spoken(&self, report: GroupReport) -> (Report, Spoken) {
        let holds = report.holds.into_iter().map(|hold| Hold {
            partition: hold.partition,
            epoch: hold.epoch,
        });
        let spoken = Spoken {
            origin: Arc::clone(&self.origin),
            progress: report.progress,
        };
        let report = Report {
            group: report.group,
            member: report.member,
            sequence: report.sequence,
            seen: report.seen,
            holds: holds.collect(),
        };
        (report, spoken)
    }

    /// Asks the coordinator and leaves the answer to a task, which may wait long: other requests of
    /// the connection go on. When the connection ends nobody waits any more; the member stays one.
    async fn poll(&mut self, kind: Kind, correlation: u32, said: Said) -> Result<(), Refusal> {
        let request = self.request_permit().await;
        if self.ending.is_cancelled() {
            return Err(Refusal::of(ErrorCode::Draining).retry_later());
        }
        let (answer, answered) = oneshot::channel();
        if !self.shared.groups.ask(Ask::Member(said, answer)).await {
            return Err(Refusal::of(ErrorCode::Draining).retry_later());
        }
        let replies = self.replies(kind, correlation);
        let views = Arc::clone(&self.shared.views);
        let ending = self.ending.clone();
        let token = self.token.clone();
        let work = async move {
            let reply = ending.run_until_cancelled(answered).await;
            let answer = match reply {
                Some(Ok(reply)) => Refusal::of_reply(reply),
                Some(Err(_)) | None => Err(Refusal::of(ErrorCode::Draining).retry_later()),
            };
            match answer {
                Ok(Some(news)) => replies.give(Ok(news_of(news, &views)), request).await,
                Ok(None) => replies.give(Ok(Empty {}), request).await,
                Err(refusal) => replies.give::<Empty>(Err(refusal), request).await,
            }
        };
        self.tasks.spawn(async move {
            let _cancelled = token.run_until_cancelled(work).await;
        });
        Ok(())
    }
}

pub(super) fn check_group(name: &str) -> Result<(), Refusal> {
    check_group_name(name).map_err(|error| {
        let text = format!("{name:?} is no group name: {error}");
        Refusal::new(ErrorCode::InvalidName, text)
    })
}

const fn assignor(kind: AssignorKind) -> Assignor {
    match kind {
        AssignorKind::Sticky => Assignor::Sticky,
        AssignorKind::Range => Assignor::Range,
    }
}

fn news_of(news: News, views: &Views) -> GroupNews {
    let hold = |hold: Hold| GroupHold {
        partition: hold.partition,
        epoch: hold.epoch,
    };
    let catalog: Arc<Catalog> = views.catalog();
    // What was granted of a topic that is deleted meanwhile is not listed, so it counts as given up.
    let granted = news.granted.into_iter().filter_map(|grant| {
        Some(GroupGrant {
            topic: catalog.by_id(grant.hold.partition.topic)?.name.clone(),
            hold: hold(grant.hold),
            committed: grant.committed,
        })
    });
    GroupNews {
        sequence: news.sequence,
        generation: news.generation,
        granted: granted.collect(),
        lost: news.lost.into_iter().map(hold).collect(),
        revoked: news.revoked.into_iter().map(hold).collect(),
    }
}

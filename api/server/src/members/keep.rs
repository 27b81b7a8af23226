//! The leader makes Raft's membership follow the records: takes in who has joined, promotes who has caught up, sends away who is to
//! go. One step at a time, decided afresh from what is there, so that a new leader goes on where the last one died.

use super::record::{self, Record, Wanted};
use crate::core::Core;
use eventstore::{Actor, Cause, Intent};
use raft::{ChangeError, Standing};
use seams::Peer;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const LOOK_EVERY: Duration = Duration::from_millis(200);
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Never returns.
pub(crate) async fn run(core: Core) {
    loop {
        sleep(LOOK_EVERY).await;
        let Some(standing) = core.node().standing() else {
            continue;
        };
        let records = record::all(&core.view());
        let gone = |id| core.node().is_gone(id);
        let Some(step) = decide(&records, &standing, gone) else {
            // Two majorities would be needed until it is done.
            match timeout(STEP_TIMEOUT, core.node().finish_change()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a change of the members goes on"),
                Err(_) => tracing::warn!("a change of the members takes long"),
            }
            continue;
        };
        // One that is not done by then is under way in Raft, and is looked at again.
        match timeout(STEP_TIMEOUT, carry_out(&core, &step)).await {
            Ok(Ok(())) => tracing::info!(?step, "the members changed"),
            Ok(Err(error)) => tracing::debug!(?step, error, "a change of the members goes on"),
            Err(_) => tracing::warn!(?step, "a change of the members takes long"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Take(Peer),
    Promote(u64),
    Remove(u64),
    /// The leader itself is to go: another has to lead first.
    HandOver,
    /// It was a member and is none: a recovery has left it out, and it can't come back.
    Forget(u64),
}

/// The first thing that is to be done and may be.
fn decide(records: &[Record], standing: &Standing, gone: impl Fn(u64) -> bool) -> Option<Step> {
    records.iter().find_map(|record| {
        let id = record.id;
        match (record.wanted, standing.member(id)) {
            (Wanted::Gone, Some(_)) if standing.may_remove(id).is_err() => None,
            (Wanted::Gone, Some(_)) if standing.leader == id => Some(Step::HandOver),
            (Wanted::Gone, Some(_)) => Some(Step::Remove(id)),
            (Wanted::Gone, None) => None,
            (_, None) if record.joined.is_none() => None,
            (_, None) if gone(id) => Some(Step::Forget(id)),
            (_, None) => Some(Step::Take(Peer {
                id,
                name: record.name.clone(),
                address: record.address.clone(),
            })),
            (Wanted::Voter, Some(member)) if !member.voter => standing
                .may_promote(id)
                .is_ok()
                .then_some(Step::Promote(id)),
            (Wanted::Voter | Wanted::Learner, Some(_)) => None,
        }
    })
}

async fn carry_out(core: &Core, step: &Step) -> Result<(), String> {
    let node = core.node();
    let said = |error: ChangeError| error.to_string();
    match step {
        Step::Take(peer) => node.add_learner(peer).await.map_err(said),
        Step::Promote(id) => node.promote_member(*id).await.map_err(said),
        Step::Remove(id) => node.remove_member(*id).await.map_err(said),
        Step::HandOver => node
            .transfer_leadership(None)
            .await
            .map(drop)
            .map_err(|error| error.to_string()),
        Step::Forget(id) => forget(core, *id).await,
    }
}

async fn forget(core: &Core, id: u64) -> Result<(), String> {
    let name = core.name().into();
    let mut request = core.request(Actor::Server { name }, Cause::default());
    let intent = Intent::Reconcile {
        what: "forget a server that a recovery left out".into(),
    };
    let deadline = Instant::now() + STEP_TIMEOUT;
    let written = record::write(core, &mut request, intent, deadline, |view| {
        Ok(record::get(view, id).map(|record| Record {
            wanted: Wanted::Gone,
            ..record
        }))
    });
    written.await.map(drop).map_err(|error| error.message)
}

#[cfg(test)]
mod tests {
    use super::super::record::Joined;
    use super::*;
    use raft::MemberStanding;

    /// `4voter 5learner? 3gone`: id and what is wanted, `?` for one that has not joined.
    fn records(text: &str) -> Vec<Record> {
        let record = |word: &str| {
            let id = word[..1].parse().unwrap();
            Record {
                id,
                name: format!("server-{id}"),
                address: format!("host-{id}:6443"),
                wanted: match word[1..].trim_end_matches('?') {
                    "voter" => Wanted::Voter,
                    "learner" => Wanted::Learner,
                    _ => Wanted::Gone,
                },
                invitation: None,
                joined: (!word.ends_with('?')).then_some(Joined { key: None }),
                lead: None,
            }
        };
        text.split_whitespace().map(record).collect()
    }

    /// `1v 2v 3l`: voters and learners; 1 leads, `-` does not answer.
    fn standing(text: &str) -> Standing {
        let member = |word: &str| {
            let id = word[..1].parse().unwrap();
            MemberStanding {
                id,
                name: format!("server-{id}"),
                address: format!("host-{id}:6443"),
                voter: word.contains('v'),
                matched: Some(100),
                answers: !word.contains('-'),
            }
        };
        Standing {
            leader: 1,
            last_log: 100,
            members: text.split_whitespace().map(member).collect(),
        }
    }

    #[test]
    fn the_membership_follows_the_records() {
        let take = |id: u64| {
            Some(Step::Take(Peer {
                id,
                name: format!("server-{id}"),
                address: format!("host-{id}:6443"),
            }))
        };
        // records, members, who left, step
        let rows = [
            ("", "1v 2v 3v", "", None),
            ("4voter?", "1v", "", None),
            ("4voter", "1v", "", take(4)),
            ("4voter", "1v 4l", "", Some(Step::Promote(4))),
            ("4voter", "1v 4l-", "", None),
            ("4learner", "1v 4l", "", None),
            ("4voter", "1v 4v", "", None),
            ("4voter", "1v", "4", Some(Step::Forget(4))),
            ("4gone", "1v", "", None),
            ("4gone?", "1v", "", None),
            ("2gone", "1v 2v", "", Some(Step::Remove(2))),
            ("2gone", "1v 2v 3v-", "", None),
            ("1gone", "1v", "", None),
            ("1gone", "1v 2v", "", Some(Step::HandOver)),
            ("2gone 4voter", "1v 2v 3v- 4l", "", Some(Step::Promote(4))),
            (
                "3gone 4voter 5voter",
                "1v 2v 3v-",
                "",
                Some(Step::Remove(3)),
            ),
        ];
        for (wanted, members, left, step) in rows {
            let gone = |id: u64| left.contains(&id.to_string());
            assert_eq!(
                decide(&records(wanted), &standing(members), gone),
                step,
                "{wanted}; {members}"
            );
        }
    }
}

//! Members join and leave while the cluster runs, one at a time.
//!
//! A server is taken in as a learner, which receives the log and doesn't vote; it is promoted once it has caught up. What may
//! be done is decided from [`Standing`], what the leader knows of all, by pure functions that say why not. The decisions keep the
//! cluster able to write; that nothing is lost is Raft's own affair, whatever is decided here.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use seams::Peer;
use serde::{Deserialize, Serialize};

use crate::node::Node;
use crate::types::{Address, NodeId, Types};

/// How far behind the leader's log a server may be that is to vote: it has to be made up before the next write is acknowledged,
/// should the new vote be needed.
pub const LAG_MAX: u64 = 1_000;
/// Who has acknowledged nothing for so long does not count as answering.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Why the membership is as it was, or may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("this server does not lead")]
    NotLeader { leader: Option<Peer> },
    /// It makes no sense, or another change is under way.
    #[error("{0}")]
    Refused(String),
    #[error("this server is stopping")]
    Stopped,
}

/// What a leader knows of all members, itself included, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standing {
    pub leader: NodeId,
    /// The last index of its log.
    pub last_log: u64,
    pub members: Vec<MemberStanding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStanding {
    pub id: NodeId,
    pub name: String,
    /// `host:port`
    pub address: String,
    /// Counts for majorities.
    pub voter: bool,
    /// Up to where its log is the leader's, as far as it has said.
    pub matched: Option<u64>,
    /// It has acknowledged something within the last two seconds.
    pub answers: bool,
}

impl MemberStanding {
    /// Entries that it still has to receive.
    pub fn lag(&self, last_log: u64) -> u64 {
        match self.matched {
            Some(matched) => last_log.saturating_sub(matched),
            None => last_log + 1,
        }
    }
}

impl Standing {
    pub fn member(&self, id: NodeId) -> Option<&MemberStanding> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whether a learner may vote; why not.
    pub fn may_promote(&self, id: NodeId) -> Result<(), String> {
        let Some(member) = self.member(id) else {
            return Err(format!("server {id} has not joined yet: start it first"));
        };
        let MemberStanding { name, .. } = member;
        if member.voter {
            return Err(format!("{name} votes already"));
        }
        if !member.answers {
            return Err(format!(
                "{name} does not answer: see to it that it runs and can be reached at {}",
                member.address
            ));
        }
        let lag = member.lag(self.last_log);
        if lag > LAG_MAX {
            return Err(format!(
                "{name} lags by {lag} entries (it has {} of {}): try again when it has caught up",
                member.matched.map_or(0, |matched| matched + 1),
                self.last_log + 1
            ));
        }
        self.majority_of(|voter| voter.id == id || voter.voter)
            .map_err(|why| format!("with {name} {why}"))
    }

    /// Whether a member may be sent away; why not.
    pub fn may_remove(&self, id: NodeId) -> Result<(), String> {
        let Some(member) = self.member(id) else {
            return Err(format!("server {id} is no member"));
        };
        let MemberStanding { name, .. } = member;
        if !member.voter {
            return Ok(());
        }
        if self.members.iter().filter(|other| other.voter).count() == 1 {
            return Err(format!(
                "{name} is the only server that votes, and a cluster needs one: add another and promote it first"
            ));
        }
        self.majority_of(|other| other.voter && other.id != id)
            .map_err(|why| format!("without {name} {why}"))
    }

    /// Whether a member may lead; why not.
    pub fn may_lead(&self, id: NodeId) -> Result<(), String> {
        let Some(member) = self.member(id) else {
            return Err(format!("server {id} is no member"));
        };
        let MemberStanding { name, .. } = member;
        if !member.voter {
            return Err(format!(
                "{name} doesn't vote, and so can't lead: promote it first"
            ));
        }
        if !member.answers {
            return Err(format!("{name} does not answer, and so can't lead"));
        }
        Ok(())
    }

    /// Whether of these voters a majority answers.
    fn majority_of(&self, voters: impl Fn(&MemberStanding) -> bool) -> Result<(), String> {
        let voters: Vec<_> = self
            .members
            .iter()
            .filter(|member| voters(member))
            .collect();
        let silent: Vec<&str> = voters
            .iter()
            .filter(|voter| !voter.answers)
            .map(|voter| voter.name.as_str())
            .collect();
        let answering = voters.len() - silent.len();
        if answering * 2 > voters.len() {
            return Ok(());
        }
        Err(format!(
            "{answering} of {} voting servers would answer, which is no majority: nothing could be written any more; start {} again \
             first, or remove what is dead before what lives",
            voters.len(),
            silent.join(" and ")
        ))
    }
}

impl Node {
    /// What this server knows of all members, if it leads.
    pub fn standing(&self) -> Option<Standing> {
        let metrics = self.raft().metrics().borrow_watched().clone();
        if metrics.state != openraft::ServerState::Leader {
            return None;
        }
        let me = self.id();
        let last_log = metrics.last_log_index.unwrap_or(0);
        let (replication, heartbeat) = (metrics.replication?, metrics.heartbeat?);
        let membership = &metrics.membership_config;
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let members = membership.nodes().map(|(id, node)| {
            let matched = replication.get(id).copied().flatten();
            let heard = heartbeat.get(id).copied().flatten();
            MemberStanding {
                id: *id,
                name: node.name.clone(),
                address: node.address.clone(),
                voter: voters.contains(id),
                matched: if *id == me {
                    Some(last_log)
                } else {
                    matched.map(|id| id.index)
                },
                answers: *id == me || heard.is_some_and(|at| at.elapsed() < ANSWERS_WITHIN),
            }
        });
        Some(Standing {
            leader: me,
            last_log,
            members: members.collect(),
        })
    }

    /// Takes a server in, on the leader: it receives the log from now on. Its id must never have been used, for another disk
    /// would not know what was promised under it.
    pub async fn add_learner(&self, peer: &Peer) -> Result<(), ChangeError> {
        let members = self.status().members;
        if let Some(same) = members.iter().find(|member| member.peer.id == peer.id) {
            return if same.peer == *peer {
                Ok(())
            } else {
                Err(ChangeError::Refused(format!(
                    "server {} is {}",
                    peer.id, same.peer
                )))
            };
        }
        // One that was only ever taken in by a leader whose word did not last may be taken in again: with the disk that it was seen with.
        if self.is_gone(peer.id) {
            return Err(ChangeError::Refused(format!(
                "the id {} has been used before",
                peer.id
            )));
        }
        let learner = self
            .raft()
            .add_learner(peer.id, Address::from(peer), false)
            .await;
        learner.map(drop).map_err(refused)
    }

    /// Gives a learner its vote, on the leader, if it may have it.
    pub async fn promote_member(&self, id: NodeId) -> Result<(), ChangeError> {
        self.leading()?
            .may_promote(id)
            .map_err(ChangeError::Refused)?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])))
            .await
    }

    /// Sends a server away, on the leader, if the rest can go on without it; another than the leader itself, which has to hand
    /// over leadership first. Its id is used up.
    pub async fn remove_member(&self, id: NodeId) -> Result<(), ChangeError> {
        let standing = self.leading()?;
        standing.may_remove(id).map_err(ChangeError::Refused)?;
        if id == self.id() {
            return Err(ChangeError::Refused(
                "the leader has to hand over leadership before it is removed".to_owned(),
            ));
        }
        let ids = BTreeSet::from([id]);
        let voter = standing.member(id).is_some_and(|member| member.voter);
        self.change(if voter {
            ChangeMembers::RemoveVoters(ids)
        } else {
            ChangeMembers::RemoveNodes(ids)
        })
        .await
    }

    /// Ends a change that a leader before this one left half done: two majorities would be needed until then.
    pub async fn finish_change(&self) -> Result<(), ChangeError> {
        let half = {
            let metrics = self.raft().metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            membership.get_joint_config().len() > 1
        };
        if !half {
            return Ok(());
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new()))
            .await
    }

    fn leading(&self) -> Result<Standing, ChangeError> {
        self.standing().ok_or_else(|| ChangeError::NotLeader {
            leader: self.status().leader,
        })
    }

    async fn change(&self, change: ChangeMembers<NodeId, Address>) -> Result<(), ChangeError> {
        let changed = self.raft().change_membership(change, false).await;
        changed.map(drop).map_err(refused)
    }
}

fn refused(error: RaftError<Types, ClientWriteError<Types>>) -> ChangeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => ChangeError::NotLeader {
            leader: forward
                .leader_id
                .zip(forward.leader_node)
                .map(|(id, node)| node.peer(id)),
        },
        RaftError::APIError(error) => ChangeError::Refused(error.to_string()),
        RaftError::Fatal(_) => ChangeError::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1L 2v 3v- 4l+900`: leader, voter, voter that does not answer, learner with a lag.
    fn standing(text: &str) -> Standing {
        const LAST: u64 = 5_000;
        let member = |word: &str| {
            let id = word[..1].parse().unwrap();
            let lag = word.split_once('+').map_or("0", |(_, lag)| lag);
            MemberStanding {
                id,
                name: format!("server-{id}"),
                address: format!("host-{id}:6443"),
                voter: !word.contains('l'),
                matched: (lag != "all").then(|| LAST - lag.parse::<u64>().unwrap()),
                answers: !word.contains('-'),
            }
        };
        Standing {
            leader: 1,
            last_log: LAST,
            members: text.split(' ').map(member).collect(),
        }
    }

    #[test]
    fn what_would_leave_no_majority_is_refused() {
        type May = fn(&Standing, NodeId) -> Result<(), String>;
        let promote: May = Standing::may_promote;
        let (remove, lead): (May, May) = (Standing::may_remove, Standing::may_lead);
        // (act, members, of which server, a part of why not; "" for yes)
        let rows: [(May, &str, NodeId, &str); 20] = [
            (promote, "1L 2l", 2, ""),
            (promote, "1L 2l+1000", 2, ""),
            (
                promote,
                "1L 2l+1001",
                2,
                "server-2 lags by 1001 entries (it has 4000 of 5001)",
            ),
            (promote, "1L 2l+all", 2, "it has 0 of 5001"),
            (promote, "1L 2l-", 2, "does not answer"),
            (promote, "1L 2v", 2, "votes already"),
            (promote, "1L", 2, "has not joined yet"),
            (promote, "1L 2v 3v- 4l", 4, ""),
            (promote, "1L 2v- 3l", 3, ""),
            (remove, "1L", 1, "the only server that votes"),
            (remove, "1L 2l", 1, "the only server that votes"),
            (remove, "1L 2l-", 2, ""),
            (remove, "1L 2v", 2, ""),
            (remove, "1L 2v 3v-", 3, ""),
            (
                remove,
                "1L 2v 3v-",
                2,
                "without server-2 1 of 2 voting servers would answer",
            ),
            (
                remove,
                "1L 2v 3v 4v- 5v-",
                3,
                "start server-4 and server-5 again first",
            ),
            (remove, "1L 2v 3v", 7, "is no member"),
            (lead, "1L 2v", 2, ""),
            (lead, "1L 2v-", 2, "does not answer"),
            (lead, "1L 2l", 2, "doesn't vote"),
        ];
        for (may, members, id, expected) in rows {
            let said = may(&standing(members), id).err().unwrap_or_default();
            let right = said.is_empty() == expected.is_empty() && said.contains(expected);
            assert!(right, "{members}, server {id}: {said:?}");
        }
    }
}

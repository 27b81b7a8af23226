//! What a server says about itself: `reckon status` and the metrics read it.

use super::Core;
use raft::Role;
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub name: String,
    pub id: u64,
    pub leader: Option<String>,
    pub term: u64,
    pub role: String,
    pub revision: u64,
    /// The last log index folded.
    pub applied: u64,
    pub digest: String,
    /// The log's clock at the last entry, RFC 3339.
    pub clock: String,
    /// Why it does not serve, when it does not.
    pub fault: Option<String>,
    pub members: Vec<MemberStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct MemberStatus {
    pub id: u64,
    pub name: String,
    pub address: String,
    pub voter: bool,
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Learner => "learner",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Stopped => "stopped",
    }
}

impl Core {
    /// How often this server's Raft log was synced since the server started.
    pub fn log_syncs(&self) -> u64 {
        self.node().log_statistics().wal_syncs
    }

    pub fn status(&self) -> Status {
        let raft = self.node().status();
        let view = self.view();
        Status {
            name: self.name().to_owned(),
            id: raft.id,
            leader: raft.leader.map(|leader| leader.name),
            term: raft.term,
            role: role(raft.role).to_owned(),
            revision: view.revision,
            applied: view.position.index,
            digest: view.digest.to_string(),
            clock: view.clock.milli(),
            fault: raft.failed,
            members: raft
                .members
                .into_iter()
                .map(|member| MemberStatus {
                    id: member.peer.id,
                    name: member.peer.name,
                    address: member.peer.address,
                    voter: member.voter,
                })
                .collect(),
        }
    }
}

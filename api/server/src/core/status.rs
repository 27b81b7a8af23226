//! What a server says about itself: `reckon status` and the metrics read it.

use super::Core;
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
    /// Why it does not serve, when it does not.
    pub fault: Option<String>,
    pub members: Vec<MemberStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct MemberStatus {
    pub id: u64,
    pub name: String,
    pub address: String,
}

impl Core {
    pub fn status(&self) -> Status {
        let raft = self.node().status();
        let view = self.view();
        Status {
            name: self.name().to_owned(),
            id: raft.id,
            leader: raft.leader.map(|leader| leader.name),
            term: raft.term,
            role: raft.role.to_string(),
            revision: view.revision,
            applied: view.position.index,
            digest: view.digest.to_string(),
            fault: raft.fault,
            members: raft.members.into_iter().map(|member| MemberStatus { id: member.id, name: member.name, address: member.address }).collect(),
        }
    }
}

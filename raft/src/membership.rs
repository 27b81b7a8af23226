//! Members join and leave while the cluster runs.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::errors::{ClientWriteError, RaftError};
use seams::Peer;

use crate::node::Node;
use crate::types::{Address, NodeId, Types};

/// How long a new member may take to catch up before its joining is given up.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(120);

/// Why the membership is as it was, or may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("this server does not lead")]
    NotLeader { leader: Option<Peer> },
    /// It makes no sense, or another change is under way.
    #[error("{0}")]
    Refused(String),
    /// The new member receives the log and doesn't vote; ask again when it is there.
    #[error("the new member did not catch up in time")]
    Behind,
    #[error("this server is stopping")]
    Stopped,
}

impl Node {
    /// Takes a server in, on the leader: it first receives the log, and votes once it has caught up. Its id must never have
    /// been used, for another disk would not know what was promised under it.
    pub async fn add_member(&self, peer: &Peer) -> Result<(), ChangeError> {
        let learner = self.raft().add_learner(peer.id, Address::from(peer), true);
        match tokio::time::timeout(CATCH_UP_DEADLINE, learner).await {
            Ok(done) => done.map_err(refused)?,
            Err(_) => return Err(ChangeError::Behind),
        };
        let voters = ChangeMembers::AddVoterIds(BTreeSet::from([peer.id]));
        self.raft()
            .change_membership(voters, true)
            .await
            .map_err(refused)?;
        Ok(())
    }

    /// Sends a server away, on the leader, which may be that server. Its id is used up.
    pub async fn remove_member(&self, id: NodeId) -> Result<(), ChangeError> {
        let member = self
            .status()
            .members
            .into_iter()
            .find(|member| member.peer.id == id);
        let change = match member {
            None => return Err(ChangeError::Refused(format!("server {id} is no member"))),
            Some(member) if member.voter => ChangeMembers::RemoveVoters(BTreeSet::from([id])),
            Some(_) => ChangeMembers::RemoveNodes(BTreeSet::from([id])),
        };
        self.raft()
            .change_membership(change, false)
            .await
            .map_err(refused)?;
        Ok(())
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

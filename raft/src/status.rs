//! What a node knows of itself and the cluster, for everyone above to watch.

use openraft::ServerState;
use seams::Peer;
use tokio::time::Instant;

use crate::types::{LogId, Member, NodeId, Position, StoredMembership, Types};

/// A moment of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub id: NodeId,
    pub term: u64,
    pub role: Role,
    /// Who leads this term, as far as is known here.
    pub leader: Option<Peer>,
    /// How often a server came to lead, as far as was seen here since the start.
    pub leader_changes: u64,
    /// Whom the last of them made leader, and in which term.
    led: Option<(u64, NodeId)>,
    /// The last entry in the log here, committed or not.
    pub last_log: Option<u64>,
    pub committed: Option<Position>,
    pub applied: Option<Position>,
    /// The newest snapshot.
    pub snapshot: Option<Position>,
    /// Up to where the log has been cut off.
    pub purged: Option<Position>,
    pub members: Vec<Member>,
    /// Since when term, role and leader are these.
    pub since: Instant,
    /// All that this server may have served before it was started last is applied again: from now on it may be read
    /// without asking the leader, and is never older than before.
    pub recovered: bool,
    /// Why this node has stopped for good, if it has: it can't write its log, could
    /// not apply an entry, or is not who the others know it to be.
    pub failed: Option<String>,
}

/// What a node does in its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Receives the log, and doesn't vote.
    Learner,
    Follower,
    /// Asks for votes.
    Candidate,
    Leader,
    /// Stopped, or failed.
    Stopped,
}

impl Status {
    pub(crate) fn of(id: NodeId) -> Self {
        Self {
            id,
            term: 0,
            role: Role::Learner,
            leader: None,
            leader_changes: 0,
            led: None,
            last_log: None,
            committed: None,
            applied: None,
            snapshot: None,
            purged: None,
            members: Vec::new(),
            since: Instant::now(),
            recovered: false,
            failed: None,
        }
    }

    /// Whether this server leads.
    pub fn leads(&self) -> bool {
        self.role == Role::Leader
    }

    /// Takes over the members. True: they are others than before.
    pub(crate) fn take_members(&mut self, membership: &StoredMembership) -> bool {
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        let members: Vec<_> = membership
            .nodes()
            .map(|(id, node)| Member {
                peer: node.peer(*id),
                voter: voters.contains(id),
            })
            .collect();
        let changed = self.members != members;
        self.members = members;
        changed
    }

    /// Takes over what openraft publishes, but the members. True: something is other than before.
    pub(crate) fn update(&mut self, metrics: &openraft::RaftMetrics<Types>) -> bool {
        let address = |id: NodeId| metrics.membership_config.get_node(&id);
        let role = match metrics.state {
            ServerState::Learner => Role::Learner,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Leader => Role::Leader,
            ServerState::Shutdown => Role::Stopped,
        };
        let leads = metrics
            .current_leader
            .and_then(|id| Some((id, address(id)?)));
        let same_leader = match (&self.leader, leads) {
            (None, None) => true,
            (Some(known), Some((id, address))) => {
                known.id == id && known.name == address.name && known.address == address.address
            }
            (None, Some(_)) | (Some(_), None) => false,
        };
        let mut changed = false;
        if !same_leader {
            self.leader = leads.map(|(id, address)| address.peer(id));
        }
        if !same_leader || (self.term, self.role) != (metrics.current_term, role) {
            self.since = Instant::now();
            (self.term, self.role) = (metrics.current_term, role);
            changed = true;
        }
        let led = self.leader.as_ref().map(|leader| (self.term, leader.id));
        if led.is_some() && led != self.led {
            self.led = led;
            self.leader_changes += 1;
            changed = true;
        }
        let mut place = |place: &mut Option<Position>, now: Option<LogId>| {
            let now = now.map(Position::from);
            changed |= *place != now;
            *place = now;
        };
        place(&mut self.committed, metrics.local_committed);
        place(&mut self.applied, metrics.last_applied);
        place(&mut self.snapshot, metrics.snapshot);
        place(&mut self.purged, metrics.purged);
        if self.last_log != metrics.last_log_index {
            self.last_log = metrics.last_log_index;
            changed = true;
        }
        if let Err(fatal) = &metrics.running_state
            && !matches!(fatal, openraft::errors::Fatal::Stopped)
            && self.failed.is_none()
        {
            self.failed = Some(fatal.to_string());
            changed = true;
        }
        changed
    }
}

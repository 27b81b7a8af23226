//! What a server says about itself: `reckon status` and the metrics read it.

use super::Core;
use crate::room::HasRoom;
use raft::Role;
use serde::Serialize;

/// By how much a wall clock may be off before it is said: what a network's delays explain is not worth a word.
const CLOCK_OFF_MS: u64 = 5_000;

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
    /// It serves nobody, for its history is not the others'.
    pub fenced: bool,
    /// What is wrong and does not keep it from serving.
    pub warnings: Vec<String>,
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

    fn warnings(&self) -> Vec<String> {
        let room = self.rooms().own().filter(HasRoom::is_short);
        let room = room.map(|room| {
            format!("{room}: make room, or keep less history (--history-retention). While it leads, or with a majority of such servers, users' writes are refused")
        });
        let off_ms = self.node().measured().clock_off_ms;
        let off = off_ms.filter(|ms| ms.unsigned_abs() > CLOCK_OFF_MS).map(|ms| {
            let (name, s) = (self.name(), ms.unsigned_abs() / 1_000);
            let way = if ms > 0 { "ahead of" } else { "behind" };
            format!("{name}'s wall clock is {s} s {way} the cluster's: set it right (the cluster's own clock does not jump with it)")
        });
        let unpruned = self.pruning().failing();
        let unpruned = unpruned.map(|(since_s, error)| {
            format!("history before the horizon is not removed since {since_s} s, and its room not given back; it is tried again: {error}")
        });
        let worst = self.says_damaged().into_iter().chain(room);
        let warnings = worst.chain(self.diverges()).chain(off);
        warnings.chain(unpruned).collect()
    }

    pub fn status(&self) -> Status {
        let raft = self.node().status();
        let (view, fenced) = (self.view(), self.fenced());
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
            fault: raft.failed.or(fenced.as_deref().map(str::to_owned)),
            fenced: fenced.is_some(),
            warnings: self.warnings(),
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

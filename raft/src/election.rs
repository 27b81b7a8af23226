//! Standing for election at a start.
//!
//! Where all servers start, nobody leads, and openraft would have each wait as for a leader that has fallen silent, and then a random time,
//! which two may draw alike. But a server that has just started owes loyalty to nobody. So they stand at once, and in turns, one a moment
//! after the other. It is a pre-vote that each begins with: where somebody leads after all, those that hear of it refuse, and nothing has
//! happened. What does not come about so is left to openraft.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, sleep_until};

use crate::incoming::Raft;
use crate::types::NodeId;

/// By how much the turns of two servers are apart: an election takes two questions to a peer and a sync there, which takes longer at a
/// start, when much else is read and written.
const TURN: Duration = Duration::from_millis(50);

/// Has a server stand for election in its turns, until openraft would have it stand by itself.
pub(crate) async fn stand_at_start(
    id: NodeId,
    raft: Raft,
    may_stand: impl Fn() -> bool,
    for_so_long: Duration,
) {
    let started = Instant::now();
    let (place, round) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: Vec<_> = metrics.membership_config.voter_ids().collect();
        let before = voters.iter().filter(|voter| **voter < id).count();
        (TURN * before as u32, TURN * voters.len() as u32)
    };
    if round.is_zero() {
        return;
    }
    let mut turn = place;
    while turn < for_so_long {
        sleep_until(started + turn).await;
        let under_way = raft.metrics().borrow_watched().state == openraft::ServerState::Candidate;
        if may_stand() && !under_way && raft.trigger().elect(true).await.is_err() {
            return;
        }
        turn += round;
    }
}

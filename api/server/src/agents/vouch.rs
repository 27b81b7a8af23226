//! Heartbeats are the session and are not events: each server vouches to the leader for the sessions it holds, and the leader proposes
//! `session lost` for one that nobody has vouched for past the grace.
//!
//! A new leader gives every session fresh grace. A server that has heard no leader for a while closes its sessions, so that agents
//! dial another server before the leader gives them up.

use super::Hub;
use super::session::SESSION_TIMEOUT;
use crate::core::Draft;
use eventstore::{Act, Actor, Cause, Intent, ProposalId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The peers' method by which a server vouches for its sessions.
pub(crate) const METHOD_VOUCH: &str = "vouch";

const VOUCH_EVERY: Duration = Duration::from_secs(1);
const VOUCH_TIMEOUT: Duration = Duration::from_secs(1);
/// A server that could vouch to no leader for this long closes its sessions.
const NO_LEADER_MAX: Duration = Duration::from_secs(5);

/// What the leader has been told. Meaningful in `term` alone.
#[derive(Default)]
pub(super) struct Vouched {
    term: u64,
    since: Option<Instant>,
    /// node -> (epoch, when last vouched for)
    sessions: BTreeMap<String, (u64, Instant)>,
}

#[derive(Serialize, Deserialize)]
struct Vouch {
    sessions: Vec<(String, u64)>,
}

pub(super) async fn run(hub: Hub) {
    let mut tick = interval(VOUCH_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard_leader = Instant::now();
    loop {
        tick.tick().await;
        if hub.vouch().await {
            heard_leader = Instant::now();
        } else if heard_leader.elapsed() > NO_LEADER_MAX {
            hub.close_all();
        }
        hub.give_up_lost().await;
    }
}

impl Hub {
    /// Tells the leader which sessions live here. False: no leader took it.
    async fn vouch(&self) -> bool {
        let sessions: Vec<_> = self
            .sessions()
            .iter()
            .filter(|(_, held)| held.heard.elapsed() < SESSION_TIMEOUT)
            .map(|(node, held)| (node.clone(), held.epoch))
            .collect();
        let status = self.core().node().status();
        let Some(leader) = status.leader else {
            return false;
        };
        if leader.id == status.id {
            self.take_vouch(sessions);
            return true;
        }
        let Ok(body) = serde_json::to_vec(&Vouch { sessions }) else {
            return false;
        };
        self.core()
            .node()
            .call(&leader, METHOD_VOUCH, body.into(), VOUCH_TIMEOUT)
            .await
            .is_ok()
    }

    /// A peer vouches. False: this server does not lead.
    pub(crate) fn vouched(&self, body: &[u8]) -> Result<bool, serde_json::Error> {
        let vouch: Vouch = serde_json::from_slice(body)?;
        let status = self.core().node().status();
        let leads = status.leads();
        if leads {
            self.take_vouch(vouch.sessions);
        }
        Ok(leads)
    }

    fn take_vouch(&self, sessions: Vec<(String, u64)>) {
        let now = Instant::now();
        let mut vouched = self
            .0
            .vouched
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (node, epoch) in sessions {
            let known = vouched.sessions.entry(node).or_insert((epoch, now));
            if epoch >= known.0 {
                *known = (epoch, now);
            }
        }
    }

    fn close_all(&self) {
        let sessions = self.sessions();
        if !sessions.is_empty() {
            tracing::warn!(
                sessions = sessions.len(),
                "no leader is heard: the agents' sessions are closed, so that they dial another server"
            );
        }
        sessions.values().for_each(|held| {
            held.end.send_replace(true);
        });
    }

    /// On the leader: proposes the loss of each open session that nobody vouched for past the grace.
    async fn give_up_lost(&self) {
        let status = self.core().node().status();
        if !status.leads() {
            return;
        }
        let view = self.core().view();
        if view.position.term != status.term {
            return;
        }
        let lost: Vec<_> = {
            let now = Instant::now();
            let mut vouched = self
                .0
                .vouched
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if vouched.term != status.term {
                *vouched = Vouched {
                    term: status.term,
                    since: Some(now),
                    sessions: std::mem::take(&mut vouched.sessions),
                };
            }
            let since = vouched.since.unwrap_or(now);
            vouched
                .sessions
                .retain(|node, _| view.session(node).is_some());
            view.sessions()
                .filter(|(_, session)| session.lost.is_none())
                .filter(|(node, session)| {
                    let last = vouched
                        .sessions
                        .get(&***node)
                        .filter(|(epoch, _)| *epoch >= session.epoch)
                        .map_or(since, |(_, at)| (*at).max(since));
                    now.duration_since(last) > self.0.grace
                })
                .map(|(node, session)| (node.clone(), session.epoch))
                .collect()
        };
        let mut proposals = Vec::new();
        for (node, epoch) in lost {
            tracing::warn!(
                node = &*node,
                epoch,
                "its session is lost: nobody vouched for it within the grace"
            );
            let draft = Draft {
                intent: Intent::Session,
                expectations: Vec::new(),
                act: Act::LoseSession { node, epoch },
            };
            proposals.push(eventstore::Proposal {
                id: ProposalId {
                    uuid: self.core().draw().uuid(),
                    attempt: 0,
                },
                actor: Actor::Reconciler {
                    name: "sessions".into(),
                    term: status.term,
                },
                cause: Cause {
                    revision: epoch,
                    round: 0,
                },
                intent: draft.intent,
                first_sent: view.position.index,
                salt: self.core().draw().salt(),
                expectations: draft.expectations,
                act: draft.act,
            });
        }
        if !proposals.is_empty() {
            // If leadership has moved, the next leader sees to it.
            let _ = self.core().queue().append_all(proposals, status.term).await;
        }
    }
}

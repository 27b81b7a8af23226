//! Heartbeats are the session and are not events: each server vouches to the leader for the sessions it holds, and the leader proposes
//! `session lost` for one that nobody has vouched for past the grace.
//!
//! A new leader gives every session fresh grace. A server that has heard no leader for a while closes its sessions, so that agents
//! dial another server before the leader gives them up.

use super::Hub;
use super::session::SESSION_TIMEOUT;
use crate::core::Draft;
use eventstore::{Act, Actor, Cause, Intent, ProposalId, Text};
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

/// When the leader last heard of each session. Meaningful in `term` alone.
#[derive(Default)]
pub(super) struct Vouched {
    term: u64,
    /// node -> (epoch, when it was last vouched for, or first seen by this leader)
    sessions: BTreeMap<Text, (u64, Instant)>,
}

impl Vouched {
    fn take(&mut self, node: Text, epoch: u64, now: Instant) {
        let known = self.sessions.entry(node).or_insert((epoch, now));
        if epoch >= known.0 {
            *known = (epoch, now);
        }
    }

    /// Of the open sessions, those that nobody vouched for within the grace. One that this leader, in this term, sees for the first
    /// time has the whole grace before it: whoever opened it has had no time to vouch.
    fn lost(
        &mut self,
        term: u64,
        now: Instant,
        grace: Duration,
        open: &BTreeMap<Text, u64>,
    ) -> Vec<(Text, u64)> {
        if self.term != term {
            self.term = term;
            self.sessions.values_mut().for_each(|(_, last)| *last = now);
        }
        self.sessions.retain(|node, _| open.contains_key(node));
        let mut lost = Vec::new();
        for (node, epoch) in open {
            let known = self.sessions.entry(node.clone()).or_insert((*epoch, now));
            if known.0 < *epoch {
                *known = (*epoch, now);
            }
            if now.duration_since(known.1) > grace {
                lost.push((node.clone(), *epoch));
            }
        }
        lost
    }
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
        if hub.core().fenced().is_some() {
            hub.close_all("this server is fenced");
        } else if hub.vouch().await {
            heard_leader = Instant::now();
        } else if heard_leader.elapsed() > NO_LEADER_MAX {
            hub.close_all("no leader is heard");
        }
        hub.close_ended();
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
            vouched.take(node.into(), epoch, now);
        }
    }

    /// Sessions that are over by the log, lost or fenced by a newer one: their agents must dial again.
    fn close_ended(&self) {
        let view = self.core().view();
        for (node, held) in self.sessions().iter() {
            let open = view
                .session(node)
                .is_some_and(|session| session.epoch == held.epoch && session.lost.is_none());
            if !open {
                held.end.send_replace(true);
            }
        }
    }

    fn close_all(&self, why: &str) {
        let sessions = self.sessions();
        if !sessions.is_empty() {
            tracing::warn!(
                sessions = sessions.len(),
                "{why}: the agents' sessions are closed, so that they dial another server"
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
        let open = view
            .sessions()
            .filter(|(_, session)| session.lost.is_none())
            .map(|(node, session)| (node.clone(), session.epoch))
            .collect();
        let lost = self
            .0
            .vouched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lost(status.term, Instant::now(), self.0.grace, &open);
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

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(8);

    fn open(epoch: u64) -> BTreeMap<Text, u64> {
        BTreeMap::from([("node-1".into(), epoch)])
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Simulation, seed 1: a session that was opened late in a term was lost the moment it was opened.
    #[test]
    fn a_session_that_was_just_opened_has_the_whole_grace() {
        let (mut vouched, start) = (Vouched::default(), Instant::now());
        assert_eq!(vouched.lost(1, start, GRACE, &BTreeMap::new()), []);
        assert_eq!(vouched.lost(1, start + s(60), GRACE, &open(5)), []);
        assert_eq!(vouched.lost(1, start + s(68), GRACE, &open(5)), []);
        assert_eq!(
            vouched.lost(1, start + s(69), GRACE, &open(5)),
            [("node-1".into(), 5)]
        );
        // Opened again: another session, another grace.
        assert_eq!(vouched.lost(1, start + s(69), GRACE, &open(6)), []);
    }

    #[test]
    fn who_is_vouched_for_is_kept_and_a_new_leader_gives_fresh_grace() {
        let (mut vouched, start) = (Vouched::default(), Instant::now());
        assert_eq!(vouched.lost(1, start, GRACE, &open(5)), []);
        vouched.take("node-1".into(), 5, start + s(7));
        // Of an epoch that has passed.
        vouched.take("node-1".into(), 4, start + s(20));
        assert_eq!(vouched.lost(1, start + s(15), GRACE, &open(5)), []);
        assert_eq!(
            vouched.lost(1, start + s(16), GRACE, &open(5)),
            [("node-1".into(), 5)]
        );
        assert_eq!(vouched.lost(2, start + s(16), GRACE, &open(5)), []);
        assert_eq!(
            vouched.lost(2, start + s(25), GRACE, &open(5)),
            [("node-1".into(), 5)]
        );
    }
}

//! The receiving server's side of a proposal: send it to the leader until its outcome is folded here, or time is up.
//!
//! The outcome never travels back by itself: it is in the log, and this server folds the log. So a reply that is lost, a leader that
//! dies and a server that forwarded and died cost nothing but time, and sending the same id again is always right.

use super::queue::SendError;
use super::{Core, Draft, ProposeError, Request};
use eventstore::{Event, Outcome, Proposal, ProposalId, encode_large};
use eventstore_disk::{ReadError, Settled, StoreError};
use raft::NodeId;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Between two tries to find a leader.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(200);
/// What was sent to a leader, and came to nothing for so long, is sent again under the same id.
const SENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether the leader that has it still leads.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What a caller is told to wait when the leader's queue is full.
const RETRY_AFTER_S: u32 = 1;

impl Core {
    /// Proposes, and answers when this server's own fold holds the result. A rejection comes back for the caller to read afresh and
    /// repeat; calling again with the same request is another attempt.
    pub async fn propose(
        &self,
        request: &mut Request,
        draft: Draft,
        deadline: Instant,
    ) -> Result<Arc<Event>, ProposeError> {
        let id = ProposalId {
            uuid: request.audit_id,
            attempt: request.attempt,
        };
        let proposal = Proposal {
            id,
            actor: request.actor.clone(),
            cause: request.cause,
            intent: draft.intent,
            first_sent: request.first_sent,
            salt: self.draw().salt(),
            expectations: draft.expectations,
            act: draft.act,
        };
        let is_new = std::mem::replace(&mut request.is_new, false);
        let settled = self.settle(proposal, is_new, deadline).await;
        let result = settled.and_then(|settled| match (settled.outcome, settled.event) {
            (Outcome::Accepted { .. }, Some(event)) => Ok(event),
            // The event is older than what history keeps: it was done, and no more can be said.
            (Outcome::Accepted { .. }, None) => Err(ProposeError::Unknown(id.uuid)),
            (Outcome::Rejected(rejection), _) => {
                request.attempt += 1;
                request.is_new = true;
                Err(ProposeError::Rejected(*rejection))
            }
        });
        self.outcomes().count(&result);
        result
    }

    async fn settle(
        &self,
        proposal: Proposal,
        is_new: bool,
        deadline: Instant,
    ) -> Result<Settled, ProposeError> {
        if let Some(why) = self.fenced() {
            return Err(ProposeError::Unavailable(why.to_string()));
        }
        let id = proposal.id;
        let encoded = encode_large(&proposal, proposal.act.body_bytes());
        if encoded.len() > Proposal::MOST_BYTES {
            return Err(ProposeError::TooLarge {
                bytes: encoded.len(),
                most: Proposal::MOST_BYTES,
            });
        }
        let encoded = bytes::Bytes::from(encoded);
        let expecting = if is_new {
            self.store().expect_new_outcome(id)
        } else {
            self.store().expect_outcome(id, proposal.first_sent)
        };
        let mut expecting = expecting.map_err(|error| match error {
            StoreError::TooMany { .. } => ProposeError::TooBusy {
                retry_after_s: RETRY_AFTER_S,
            },
            // What came of the first time can't be read.
            error => unreadable(id, &error.into()),
        })?;
        // Whether it may stand in some leader's log already.
        let mut sent = false;
        let mut pause = RETRY_MIN;
        loop {
            let failure = tokio::select! {
                biased;
                settled = expecting.settled() => return settled.map_err(|error| unreadable(id, &error)),
                result = self.send(&proposal, &encoded) => match result {
                    Ok(()) => break,
                    Err(failure) => failure,
                },
                // It was under way: whether a leader took it is not known.
                () = tokio::time::sleep_until(deadline) => return Err(ProposeError::Unknown(id.uuid)),
            };
            match failure {
                SendFailure::Busy if !sent => {
                    return Err(ProposeError::TooBusy {
                        retry_after_s: RETRY_AFTER_S,
                    });
                }
                SendFailure::NoRoom(why) if !sent => return Err(ProposeError::NoRoom(why)),
                SendFailure::Busy | SendFailure::NoRoom(_) | SendFailure::NoLeader => {}
                SendFailure::Lost => sent = true,
            }
            tokio::select! {
                biased;
                settled = expecting.settled() => return settled.map_err(|error| unreadable(id, &error)),
                () = sleep(pause) => {}
                () = tokio::time::sleep_until(deadline) => return Err(self.too_late(sent, id)),
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
        // Committed: this server's own fold is on its way there.
        match timeout_at(deadline, expecting.settled()).await {
            Ok(settled) => settled.map_err(|error| unreadable(id, &error)),
            Err(_) => Err(ProposeError::Unknown(id.uuid)),
        }
    }

    fn too_late(&self, sent: bool, id: ProposalId) -> ProposeError {
        if sent {
            ProposeError::Unknown(id.uuid)
        } else {
            ProposeError::Unavailable(
                "no leader could be reached in time; nothing was changed".to_owned(),
            )
        }
    }

    /// To the leader, wherever it is; returns when it has committed the proposal, or when it has to be sent again.
    async fn send(&self, proposal: &Proposal, encoded: &bytes::Bytes) -> Result<(), SendFailure> {
        let Some((term, leader)) = self.node().led() else {
            return Err(SendFailure::NoLeader);
        };
        if leader.id == self.node().id() {
            let submitted = self.queue().submit(proposal, encoded.clone()).await;
            return submitted.map_err(SendFailure::from);
        }
        tokio::select! {
            biased;
            sent = self.forward().send(term, &leader, encoded.clone()) => sent,
            () = self.given_up(term, leader.id) => Err(SendFailure::Lost),
        }
    }

    /// Until what was sent to a leader has to be sent again: another leads, or the same in another term, or nothing came of it for long.
    async fn given_up(&self, term: u64, leader: NodeId) {
        let until = Instant::now() + SENT_TIMEOUT;
        while Instant::now() < until {
            sleep(LOOK_EVERY).await;
            let led = self.node().led();
            if led.is_none_or(|(now, peer)| (now, peer.id) != (term, leader)) {
                return;
            }
        }
    }
}

/// It was done, and the event can't be read here: not to be called undone. The id tells its outcome, which needs no event.
fn unreadable(id: ProposalId, error: &ReadError) -> ProposeError {
    tracing::warn!(id = %id.uuid, %error, "what came of a proposal can't be read");
    ProposeError::Unknown(id.uuid)
}

/// Why a try to send did not end in a commit that is known of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SendFailure {
    /// The leader's queue is full; it was not taken.
    Busy,
    /// The disks are too full for it; it was not taken.
    NoRoom(String),
    /// Nobody leads, or the one asked does not; it was not taken.
    NoLeader,
    /// It may have been taken.
    Lost,
}

impl From<SendError> for SendFailure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full => Self::Busy,
            SendError::NoRoom(why) => Self::NoRoom(why.to_string()),
            SendError::NotLeader => Self::NoLeader,
            SendError::Unknown => Self::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::current_database;
    use crate::http::propose_error;
    use crate::http::tests::{MAPS, Server, server};
    use eventstore::{Act, Actor, Cause, Horizons, Intent};
    use serde_json::json;
    use std::fs;
    use uuid::Uuid;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn horizon(all: u64) -> Draft {
        let horizons = Horizons {
            all,
            resources: Vec::new(),
        };
        Draft {
            intent: Intent::Prune,
            expectations: Vec::new(),
            act: Act::Prune(horizons),
        }
    }

    /// A repetition is told of the first event, from disk; where that can't be read, it was done all the same.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_done_and_can_not_be_read_is_unknown_and_its_id_tells() {
        let server = server().await;
        let core = server.core();
        let actor = || Actor::Server {
            name: "test".into(),
        };
        let mut request = core.request(actor(), Cause::default());
        let id = request.audit_id;
        let first = core.propose(&mut request, horizon(2), soon()).await;
        let first = first.unwrap().revision();
        let again = core.propose(&mut request, horizon(2), soon()).await;
        assert_eq!(again.unwrap().revision(), first);

        let made = json!({"metadata": {"name": "after"}});
        assert_eq!(server.json("POST", MAPS, made).await.0, 201);
        let mut other = core.request(actor(), Cause::default());
        let moved = horizon(core.view().revision);
        core.propose(&mut other, moved, soon()).await.unwrap();
        assert!(core.store().horizon() > first);
        let again = core.propose(&mut request, horizon(2), soon()).await;
        check_unknown_and_told(&server, again, id, first).await;
    }

    /// The same where the event is still kept, and the disk has lost it.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_done_and_is_damaged_is_unknown_and_its_id_tells() {
        let server = server().await;
        let core = server.core();
        let name = "test".into();
        let mut request = core.request(Actor::Server { name }, Cause::default());
        let id = request.audit_id;
        let first = core.propose(&mut request, horizon(2), soon()).await;
        let first = first.unwrap().revision();
        core.store().flush().unwrap();
        garble(&server);
        let read = core.store().event_at(first).unwrap_err().to_string();
        assert!(read.contains("corrupt"), "{read}");

        let again = core.propose(&mut request, horizon(2), soon()).await;
        check_unknown_and_told(&server, again, id, first).await;
    }

    /// In each table of the state, a bit of every 16 bytes but those behind its blocks, which are in memory.
    fn garble(server: &Server) {
        let database = current_database(&*server.core().seams().directory).unwrap();
        let files = fs::read_dir(server.data_dir().join(database)).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        for path in paths.filter(|path| path.extension().is_some_and(|kind| kind == "sst")) {
            let mut content = fs::read(&path).unwrap();
            let blocks = content.len() / 2;
            content[..blocks]
                .iter_mut()
                .step_by(16)
                .for_each(|byte| *byte ^= 4);
            fs::write(&path, content).unwrap();
        }
    }

    /// A caller is not told that nothing was done, and asking by the id, as it is told to, gives what came of it.
    async fn check_unknown_and_told(
        server: &Server,
        again: Result<Arc<Event>, ProposeError>,
        id: Uuid,
        revision: u64,
    ) {
        let error = again.unwrap_err();
        assert!(
            matches!(error, ProposeError::Unknown(asked) if asked == id),
            "{error:?}"
        );
        let path = format!("/reckon/v1/history?id={id}");
        let answer = propose_error(error);
        let not_known = "the outcome of this request is not known: it may have been done";
        assert_eq!((answer.code, answer.reason), (504, "Timeout"));
        assert!(
            answer.message.contains(not_known) && answer.message.contains(&path),
            "{}",
            answer.message
        );
        let (code, told) = server.get(&path).await;
        assert_eq!(
            (code, &told["outcome"], &told["revision"]),
            (200, &json!("accepted"), &json!(revision)),
            "{told}"
        );
    }
}

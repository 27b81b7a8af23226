//! The agent's half of the protocol as a state machine: what a server says goes in, commands that may be obeyed come out.
//!
//! It refuses whatever is older than what it has seen: a Welcome of an epoch or a revision that has passed (a session that a
//! newer one fenced, a server that lags behind), and any pod or object below the revision already held for its key.
//! It does no I/O, holds no containers, and never decides what to do with a pod: that is `plan`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use thiserror::Error;

use crate::proto::{self, server_message::Kind};

/// Heartbeats when Welcome leaves it to the agent.
pub const DEFAULT_HEARTBEAT_MS: u32 = 2_000;
/// Silence after which a session is given up, when Welcome leaves it to the agent.
pub const DEFAULT_SESSION_TIMEOUT_MS: u32 = 10_000;
/// Keys of removed pods and objects whose revisions are remembered. Past it the lowest revisions are forgotten: they are below
/// every snapshot that would still be accepted.
const MAX_TOMBSTONES: usize = 4_096;

/// What outlives a session, and, but for the revisions of keys, the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Seen {
    pub cluster_id: String,
    pub epoch: u64,
    pub revision: u64,
}

/// What the server's messages amount to, once they have passed.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Welcomed {
        epoch: u64,
        cluster_id: String,
    },
    /// A pod to run, or one of this node's that has changed.
    Assign {
        pod: Value,
        revision: u64,
    },
    /// The pod's object is gone.
    Remove {
        uid: String,
        namespace: String,
        name: String,
    },
    /// A ConfigMap, Secret or Service; `None`: it does not exist.
    Object {
        key: ObjectKey,
        object: Option<Value>,
    },
    /// All this node's pods were named: these. What else runs may go.
    Complete {
        uids: BTreeSet<String>,
    },
    Stream(StreamCommand),
    /// The status was refused for good: it is not sent again until it changes.
    StatusRejected {
        uid: String,
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum StreamCommand {
    Open {
        id: u64,
        credit_bytes: u64,
        logs: proto::Logs,
    },
    Credit {
        id: u64,
        bytes: u64,
    },
    Close {
        id: u64,
    },
    /// The session that carried the streams is over.
    CloseAll,
}

/// (resource, namespace, name), as in the log's keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

/// Why a session can't go on. The agent dials the next server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("the server belongs to cluster {theirs}, this agent to {ours}")]
    OtherCluster { ours: String, theirs: String },
    #[error("epoch {theirs} is not above {ours}, which this agent has had")]
    OldEpoch { ours: u64, theirs: u64 },
    #[error("the server stands at revision {theirs}, this agent has seen {ours}")]
    Behind { ours: u64, theirs: u64 },
    #[error("fenced: {0}")]
    Fenced(String),
    #[error("protocol: {0}")]
    Protocol(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Snapshot,
    Live,
}

/// One agent's session, and what it remembers from those before.
#[derive(Debug)]
pub struct Session {
    seen: Seen,
    phase: Phase,
    heartbeat_ms: u32,
    session_timeout_ms: u32,
    /// Key of a pod (its namespace and name) to (uid, revision).
    pods: BTreeMap<(String, String), (String, u64)>,
    objects: BTreeMap<ObjectKey, u64>,
    /// Revisions at which keys went.
    removed: BTreeMap<(String, String), u64>,
    named: BTreeSet<String>,
}

impl Session {
    pub fn new(seen: Seen) -> Self {
        Session {
            seen,
            phase: Phase::Opening,
            heartbeat_ms: DEFAULT_HEARTBEAT_MS,
            session_timeout_ms: DEFAULT_SESSION_TIMEOUT_MS,
            pods: BTreeMap::new(),
            objects: BTreeMap::new(),
            removed: BTreeMap::new(),
            named: BTreeSet::new(),
        }
    }

    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    pub fn heartbeat_ms(&self) -> u32 {
        self.heartbeat_ms
    }

    pub fn session_timeout_ms(&self) -> u32 {
        self.session_timeout_ms
    }

    /// Whether the server has said Welcome.
    pub fn is_open(&self) -> bool {
        self.phase != Phase::Opening
    }

    /// A connection was made: what comes next must be a Welcome.
    pub fn reopen(&mut self) {
        self.phase = Phase::Opening;
        self.named.clear();
    }

    /// The Hello that opens a session with what this agent has seen.
    pub fn hello(&self, node_name: &str, node: &Value, simulated: bool) -> proto::Hello {
        proto::Hello {
            node_name: node_name.to_owned(),
            node: node.to_string().into_bytes(),
            version: concat!("reckon-agent/", env!("CARGO_PKG_VERSION")).to_owned(),
            simulated,
            last_revision: self.seen.revision,
            last_epoch: self.seen.epoch,
            cluster_id: self.seen.cluster_id.clone(),
        }
    }

    /// One message of the server. `Ok(None)`: nothing to do, or older than what is held.
    pub fn receive(&mut self, message: proto::ServerMessage) -> Result<Option<Command>, Refusal> {
        let Some(kind) = message.kind else {
            // A kind that this agent does not know yet: a newer server must be able to add one.
            return Ok(None);
        };
        match (self.phase, kind) {
            (_, Kind::Fenced(fenced)) => {
                self.seen.epoch = self.seen.epoch.max(fenced.epoch);
                Err(Refusal::Fenced(fenced.reason))
            }
            (Phase::Opening, Kind::Welcome(welcome)) => self.welcome(welcome).map(Some),
            (Phase::Opening, other) => Err(Refusal::Protocol(format!(
                "{} before Welcome",
                name_of(&other)
            ))),
            (_, Kind::Welcome(_)) => Err(Refusal::Protocol("a second Welcome".to_owned())),
            (_, Kind::PodAssigned(assigned)) => self.assigned(assigned),
            (_, Kind::PodRemoved(removed)) => Ok(self.removed(removed)),
            (_, Kind::Object(object)) => self.object(object),
            (Phase::Snapshot, Kind::SnapshotEnd(end)) => {
                self.phase = Phase::Live;
                self.advance(end.revision);
                let uids = std::mem::take(&mut self.named);
                self.pods.retain(|_, (uid, _)| uids.contains(uid));
                Ok(Some(Command::Complete { uids }))
            }
            (_, Kind::SnapshotEnd(_)) => Err(Refusal::Protocol("a second SnapshotEnd".to_owned())),
            (_, Kind::HeartbeatAck(ack)) => {
                self.advance(ack.revision);
                Ok(None)
            }
            (_, Kind::StreamOpen(open)) => Ok(match open.kind {
                Some(proto::stream_open::Kind::Logs(logs)) => {
                    Some(Command::Stream(StreamCommand::Open {
                        id: open.id,
                        credit_bytes: open.credit_bytes,
                        logs,
                    }))
                }
                None => None,
            }),
            (_, Kind::StreamCredit(credit)) => Ok(Some(Command::Stream(StreamCommand::Credit {
                id: credit.id,
                bytes: credit.bytes,
            }))),
            (_, Kind::StreamClose(close)) => {
                Ok(Some(Command::Stream(StreamCommand::Close { id: close.id })))
            }
            (_, Kind::PodStatusRejected(rejected)) => Ok(Some(Command::StatusRejected {
                uid: rejected.uid,
                reason: rejected.reason,
            })),
        }
    }

    fn welcome(&mut self, welcome: proto::Welcome) -> Result<Command, Refusal> {
        if !self.seen.cluster_id.is_empty() && self.seen.cluster_id != welcome.cluster_id {
            return Err(Refusal::OtherCluster {
                ours: self.seen.cluster_id.clone(),
                theirs: welcome.cluster_id,
            });
        }
        if welcome.epoch <= self.seen.epoch {
            return Err(Refusal::OldEpoch {
                ours: self.seen.epoch,
                theirs: welcome.epoch,
            });
        }
        if welcome.revision < self.seen.revision {
            return Err(Refusal::Behind {
                ours: self.seen.revision,
                theirs: welcome.revision,
            });
        }
        self.seen = Seen {
            cluster_id: welcome.cluster_id.clone(),
            epoch: welcome.epoch,
            revision: welcome.revision,
        };
        self.heartbeat_ms = or_default(welcome.heartbeat_ms, DEFAULT_HEARTBEAT_MS);
        self.session_timeout_ms =
            or_default(welcome.session_timeout_ms, DEFAULT_SESSION_TIMEOUT_MS);
        self.phase = Phase::Snapshot;
        self.named.clear();
        Ok(Command::Welcomed {
            epoch: welcome.epoch,
            cluster_id: welcome.cluster_id,
        })
    }

    fn assigned(&mut self, assigned: proto::PodAssigned) -> Result<Option<Command>, Refusal> {
        let pod: Value = serde_json::from_slice(&assigned.pod)
            .map_err(|error| Refusal::Protocol(format!("a pod that is no JSON: {error}")))?;
        let text = |field: &str| {
            pod["metadata"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let (key, uid) = ((text("namespace"), text("name")), text("uid"));
        if uid.is_empty() || key.1.is_empty() {
            return Err(Refusal::Protocol("a pod without name or uid".to_owned()));
        }
        if self
            .removed
            .get(&key)
            .is_some_and(|revision| assigned.revision <= *revision)
        {
            return Ok(None);
        }
        if self.phase == Phase::Snapshot {
            self.named.insert(uid.clone());
        }
        if let Some((held, revision)) = self.pods.get(&key)
            && (assigned.revision < *revision
                || (assigned.revision == *revision && self.phase == Phase::Live && *held == uid))
        {
            return Ok(None);
        }
        self.advance(assigned.revision);
        self.pods.insert(key, (uid, assigned.revision));
        Ok(Some(Command::Assign {
            pod,
            revision: assigned.revision,
        }))
    }

    fn removed(&mut self, removed: proto::PodRemoved) -> Option<Command> {
        let key = (removed.namespace.clone(), removed.name.clone());
        match self.pods.get(&key) {
            // Another pod has taken the name since: what is gone is the one before.
            Some((uid, _)) if *uid != removed.uid => {}
            Some((_, revision)) if removed.revision < *revision => return None,
            _ => {
                self.pods.remove(&key);
                self.removed.insert(key, removed.revision);
                self.forget_oldest();
            }
        }
        self.advance(removed.revision);
        self.named.remove(&removed.uid);
        Some(Command::Remove {
            uid: removed.uid,
            namespace: removed.namespace,
            name: removed.name,
        })
    }

    fn object(&mut self, object: proto::Object) -> Result<Option<Command>, Refusal> {
        let key = ObjectKey {
            resource: object.resource,
            namespace: object.namespace,
            name: object.name,
        };
        if self
            .objects
            .get(&key)
            .is_some_and(|revision| object.revision < *revision)
        {
            return Ok(None);
        }
        let body = match object.json {
            None => None,
            Some(bytes) => Some(serde_json::from_slice(&bytes).map_err(|error| {
                Refusal::Protocol(format!("{} {}: no JSON: {error}", key.resource, key.name))
            })?),
        };
        self.advance(object.revision);
        self.objects.insert(key.clone(), object.revision);
        if self.objects.len() > MAX_TOMBSTONES
            && let Some(oldest) = self
                .objects
                .iter()
                .min_by_key(|(_, revision)| **revision)
                .map(|(key, _)| key.clone())
        {
            self.objects.remove(&oldest);
        }
        Ok(Some(Command::Object { key, object: body }))
    }

    fn advance(&mut self, revision: u64) {
        self.seen.revision = self.seen.revision.max(revision);
    }

    fn forget_oldest(&mut self) {
        if self.removed.len() > MAX_TOMBSTONES
            && let Some(oldest) = self
                .removed
                .iter()
                .min_by_key(|(_, revision)| **revision)
                .map(|(key, _)| key.clone())
        {
            self.removed.remove(&oldest);
        }
    }
}

fn or_default(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

fn name_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Welcome(_) => "Welcome",
        Kind::PodAssigned(_) => "PodAssigned",
        Kind::PodRemoved(_) => "PodRemoved",
        Kind::Object(_) => "Object",
        Kind::SnapshotEnd(_) => "SnapshotEnd",
        Kind::HeartbeatAck(_) => "HeartbeatAck",
        Kind::StreamOpen(_) => "StreamOpen",
        Kind::StreamCredit(_) => "StreamCredit",
        Kind::StreamClose(_) => "StreamClose",
        Kind::Fenced(_) => "Fenced",
        Kind::PodStatusRejected(_) => "PodStatusRejected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: Kind) -> proto::ServerMessage {
        proto::ServerMessage { kind: Some(kind) }
    }

    fn welcome(epoch: u64, revision: u64) -> proto::ServerMessage {
        message(Kind::Welcome(proto::Welcome {
            epoch,
            cluster_id: "c".into(),
            revision,
            ..Default::default()
        }))
    }

    fn pod(name: &str, uid: &str, revision: u64) -> proto::ServerMessage {
        let body = serde_json::json!({"metadata": {"namespace": "d", "name": name, "uid": uid}});
        message(Kind::PodAssigned(proto::PodAssigned {
            pod: body.to_string().into_bytes(),
            revision,
        }))
    }

    fn gone(name: &str, uid: &str, revision: u64) -> proto::ServerMessage {
        message(Kind::PodRemoved(proto::PodRemoved {
            namespace: "d".into(),
            name: name.into(),
            uid: uid.into(),
            revision,
        }))
    }

    fn end(revision: u64) -> proto::ServerMessage {
        message(Kind::SnapshotEnd(proto::SnapshotEnd { revision }))
    }

    /// A word for each answer: what a row of a script expects.
    fn word(answer: Result<Option<Command>, Refusal>) -> String {
        match answer {
            Ok(None) => "-".into(),
            Ok(Some(Command::Welcomed { epoch, .. })) => format!("welcomed {epoch}"),
            Ok(Some(Command::Assign { pod, revision })) => {
                format!(
                    "assign {}@{revision}",
                    pod["metadata"]["uid"].as_str().unwrap()
                )
            }
            Ok(Some(Command::Remove { uid, .. })) => format!("remove {uid}"),
            Ok(Some(Command::Complete { uids })) => {
                format!(
                    "complete {}",
                    uids.into_iter().collect::<Vec<_>>().join(",")
                )
            }
            Ok(Some(other)) => format!("{other:?}"),
            Err(Refusal::OldEpoch { .. }) => "old epoch".into(),
            Err(Refusal::Behind { .. }) => "behind".into(),
            Err(Refusal::Fenced(reason)) => format!("fenced {reason}"),
            Err(other) => other.to_string(),
        }
    }

    fn check(seen: Seen, script: &[(proto::ServerMessage, &str)]) -> Session {
        let mut session = Session::new(seen);
        for (at, (message, expected)) in script.iter().enumerate() {
            assert_eq!(
                &word(session.receive(message.clone())),
                expected,
                "step {at}: {message:?}"
            );
        }
        session
    }

    #[test]
    fn a_snapshot_then_changes() {
        let session = check(
            Seen::default(),
            &[
                (welcome(5, 10), "welcomed 5"),
                (pod("a", "u1", 8), "assign u1@8"),
                (pod("b", "u2", 9), "assign u2@9"),
                (end(10), "complete u1,u2"),
                (pod("a", "u1", 12), "assign u1@12"),
                (pod("a", "u1", 12), "-"),
                (pod("a", "u1", 11), "-"),
                (gone("b", "u2", 13), "remove u2"),
                (pod("b", "u2", 9), "-"),
                (pod("b", "u3", 14), "assign u3@14"),
                (gone("b", "u2", 13), "remove u2"),
                (pod("b", "u3", 15), "assign u3@15"),
            ],
        );
        assert_eq!(
            session.seen(),
            &Seen {
                cluster_id: "c".into(),
                epoch: 5,
                revision: 15
            }
        );
    }

    #[test]
    fn what_is_older_is_refused() {
        let seen = Seen {
            cluster_id: "c".into(),
            epoch: 5,
            revision: 10,
        };
        check(seen.clone(), &[(welcome(5, 20), "old epoch")]);
        check(seen.clone(), &[(welcome(4, 20), "old epoch")]);
        check(seen.clone(), &[(welcome(6, 9), "behind")]);
        check(
            seen.clone(),
            &[(pod("a", "u", 11), "protocol: PodAssigned before Welcome")],
        );
        check(
            seen.clone(),
            &[
                (welcome(6, 10), "welcomed 6"),
                (welcome(7, 11), "protocol: a second Welcome"),
            ],
        );
        check(
            Seen {
                cluster_id: "other".into(),
                ..seen
            },
            &[(
                welcome(6, 10),
                "the server belongs to cluster c, this agent to other",
            )],
        );
    }

    #[test]
    fn a_fence_raises_the_epoch() {
        let fence = message(Kind::Fenced(proto::Fenced {
            reason: "taken over".into(),
            epoch: 9,
        }));
        let mut session = check(
            Seen::default(),
            &[(welcome(5, 1), "welcomed 5"), (fence, "fenced taken over")],
        );
        session.reopen();
        assert_eq!(word(session.receive(welcome(9, 1))), "old epoch");
    }

    #[test]
    fn a_second_snapshot_names_again_what_is_held() {
        let mut session = check(
            Seen::default(),
            &[
                (welcome(5, 10), "welcomed 5"),
                (pod("a", "u1", 8), "assign u1@8"),
                (end(10), "complete u1"),
            ],
        );
        session.reopen();
        for (message, expected) in [
            (welcome(6, 10), "welcomed 6"),
            (pod("a", "u1", 8), "assign u1@8"),
            (gone("a", "u1", 11), "remove u1"),
            (end(11), "complete "),
        ] {
            assert_eq!(word(session.receive(message)), expected);
        }
    }
}

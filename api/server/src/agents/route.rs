//! Sends each node what is its own: its pods and what they refer to, as of a revision, then each change.
//!
//! One task follows the fold for all sessions of this server, so a thousand nodes cost one reading of each event and not a thousand.

use super::pods::{PODS, Placed, referable};
use super::session::message;
use crate::core::Core;
use agent::proto::{
    Object as ObjectMessage, PodAssigned, PodRemoved, ServerMessage, SnapshotEnd,
    server_message::Kind,
};
use eventstore::{Folded, Key, Object, View};
use eventstore_disk::Events;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// Sessions that may wait to be followed.
pub(super) const FOLLOWS_MAX: usize = 8_192;
/// Events taken at once.
const BATCH_MAX: usize = 256;
const FOLLOW_AGAIN: Duration = Duration::from_millis(500);

/// A session that is to be sent what is its node's.
pub(super) struct Follow {
    pub node: String,
    pub epoch: u64,
    pub sender: mpsc::Sender<ServerMessage>,
    /// Set to true to end the session.
    pub end: watch::Sender<bool>,
}

/// One session that is followed.
struct Session {
    epoch: u64,
    sender: mpsc::Sender<ServerMessage>,
    end: watch::Sender<bool>,
    /// It knows everything up to here.
    since: u64,
    /// Its pods and what each refers to.
    pods: BTreeMap<Key, BTreeSet<Key>>,
    /// How many of its pods refer to an object.
    refers: BTreeMap<Key, usize>,
}

#[derive(Default)]
struct Router {
    sessions: BTreeMap<String, Session>,
    /// The nodes whose pods refer to an object.
    referrers: BTreeMap<Key, BTreeSet<String>>,
}

pub(super) async fn run(core: Core, mut follows: mpsc::Receiver<Follow>) {
    let mut router = Router::default();
    let mut events = from_now(&core).await;
    loop {
        tokio::select! {
            biased;
            follow = follows.recv() => match follow {
                Some(follow) => router.follow(&core.view(), follow),
                None => return,
            },
            batch = events.next_batch(BATCH_MAX) => match batch {
                Ok(batch) => {
                    for event in batch {
                        event.objects.iter().for_each(|folded| router.fold(&core, folded));
                    }
                }
                Err(error) => {
                    // What was missed can't be told apart from what was not: sessions start over.
                    tracing::warn!(%error, "sessions are closed, for their events can't be followed");
                    router.end_all();
                    events = from_now(&core).await;
                }
            },
        }
    }
}

/// Events from this moment on. What is current is never before the horizon, so this is only tried again when too many watch.
async fn from_now(core: &Core) -> Events {
    loop {
        match core.store().all_events(core.view().revision) {
            Ok(events) => return events,
            Err(error) => tracing::warn!(%error, "events can't be followed yet"),
        }
        sleep(FOLLOW_AGAIN).await;
    }
}

impl Router {
    /// The snapshot: all of the node's pods as of the view, and what they refer to.
    fn follow(&mut self, view: &View, follow: Follow) {
        self.forget(&follow.node);
        let node = follow.node.clone();
        let session = Session {
            epoch: follow.epoch,
            sender: follow.sender,
            end: follow.end,
            since: view.revision,
            pods: BTreeMap::new(),
            refers: BTreeMap::new(),
        };
        self.sessions.insert(node.clone(), session);
        for pod in view.list(PODS, None) {
            let placed = Placed::of(pod);
            if placed.node == node {
                self.assign(view, &node, pod, placed);
            }
        }
        self.send(
            &node,
            Kind::SnapshotEnd(SnapshotEnd {
                revision: view.revision,
            }),
        );
    }

    fn fold(&mut self, core: &Core, folded: &Folded) {
        if self.sessions.is_empty() {
            return;
        }
        if &*folded.key.resource == PODS {
            let before = folded.before.as_deref().map(Placed::of);
            let after = folded.after.as_deref().map(Placed::of);
            if let (Some(pod), Some(placed)) = (&folded.after, after) {
                let node = placed.node.clone();
                if self.knows_before(&node, folded.revision) {
                    self.assign(&core.view(), &node, pod, placed);
                }
                return;
            }
            let Some((pod, placed)) = folded.before.as_deref().zip(before) else {
                return;
            };
            if self.knows_before(&placed.node, folded.revision) {
                self.unassign(&placed.node, &folded.key);
                self.send(
                    &placed.node,
                    Kind::PodRemoved(removed(pod, folded.revision)),
                );
            }
        } else if referable(&folded.key.resource) {
            for node in self.referrers.get(&folded.key).cloned().unwrap_or_default() {
                if self.knows_before(&node, folded.revision) {
                    self.send(
                        &node,
                        object(&folded.key, folded.after.as_deref(), folded.revision),
                    );
                }
            }
        }
    }

    /// There is such a session, and it has not been told of this revision.
    fn knows_before(&self, node: &str, revision: u64) -> bool {
        self.sessions
            .get(node)
            .is_some_and(|session| session.since < revision)
    }

    fn assign(&mut self, view: &View, node: &str, pod: &Object, placed: Placed) {
        let Some(session) = self.sessions.get_mut(node) else {
            return;
        };
        let mut fresh = Vec::new();
        // What it refers to now is counted before what it referred to is let go, so that what stays is not sent again.
        for key in &placed.refers {
            let count = session.refers.entry(key.clone()).or_default();
            *count += 1;
            if *count == 1 {
                fresh.push(key.clone());
            }
        }
        let before = session
            .pods
            .insert(pod.key.clone(), placed.refers)
            .unwrap_or_default();
        self.let_go(node, before);
        for key in fresh {
            self.referrers
                .entry(key.clone())
                .or_default()
                .insert(node.to_owned());
            let current = view.get(&key);
            let revision = current.map_or(view.revision, |object| object.revision());
            self.send(
                node,
                object(&key, current.map(|object| &**object), revision),
            );
        }
        self.send(
            node,
            Kind::PodAssigned(PodAssigned {
                pod: pod.bytes.to_vec(),
                revision: pod.revision(),
            }),
        );
    }

    fn unassign(&mut self, node: &str, pod: &Key) {
        let before = self
            .sessions
            .get_mut(node)
            .and_then(|session| session.pods.remove(pod));
        self.let_go(node, before.unwrap_or_default());
    }

    fn let_go(&mut self, node: &str, keys: BTreeSet<Key>) {
        let Some(session) = self.sessions.get_mut(node) else {
            return;
        };
        for key in keys {
            let Some(count) = session.refers.get_mut(&key) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                session.refers.remove(&key);
                remove_referrer(&mut self.referrers, &key, node);
            }
        }
    }

    fn forget(&mut self, node: &str) {
        if let Some(session) = self.sessions.remove(node) {
            tracing::debug!(node, epoch = session.epoch, "no longer followed");
            session
                .refers
                .keys()
                .for_each(|key| remove_referrer(&mut self.referrers, key, node));
        }
    }

    /// An agent that takes its messages too slowly, or is gone, is forgotten: it dials again and gets a snapshot.
    fn send(&mut self, node: &str, kind: Kind) {
        let Some(session) = self.sessions.get(node) else {
            return;
        };
        if session.sender.try_send(message(kind)).is_err() {
            session.end.send_replace(true);
            self.forget(node);
        }
    }

    fn end_all(&mut self) {
        self.sessions.values().for_each(|session| {
            session.end.send_replace(true);
        });
        *self = Self::default();
    }
}

fn remove_referrer(referrers: &mut BTreeMap<Key, BTreeSet<String>>, key: &Key, node: &str) {
    if let Some(nodes) = referrers.get_mut(key) {
        nodes.remove(node);
        if nodes.is_empty() {
            referrers.remove(key);
        }
    }
}

pub(super) fn removed(pod: &Object, revision: u64) -> PodRemoved {
    PodRemoved {
        namespace: pod.key.namespace.to_string(),
        name: pod.key.name.to_string(),
        uid: pod.uid().to_string(),
        revision,
    }
}

fn object(key: &Key, object: Option<&Object>, revision: u64) -> Kind {
    Kind::Object(ObjectMessage {
        resource: key.resource.to_string(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        json: object.map(|object| object.bytes.to_vec()),
        revision,
    })
}

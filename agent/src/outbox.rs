//! What the agent has to report, as levels: the newest status of each pod, of the node, and the pods that are gone. A report
//! replaces the one before; a reconnect sends all of them again. Events and stream data, which are edges, wait in bounded queues.
//!
//! It never sends: `link` takes from it. It never decides what a status is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::proto::{self, AgentMessage, agent_message::Kind};

/// Events that wait for a session. Past it the oldest is dropped: they may be lost.
pub const MAX_EVENTS: usize = 512;

#[derive(Clone, Default)]
pub struct Outbox {
    inner: Arc<Mutex<Inner>>,
    ready: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    pods: BTreeMap<String, proto::PodStatus>,
    gone: BTreeMap<String, proto::PodGone>,
    node: Option<proto::NodeStatus>,
    /// Uids whose report has not been sent in this session.
    unsent: BTreeSet<String>,
    node_unsent: bool,
    events: VecDeque<proto::PodEvent>,
}

impl Outbox {
    /// The pod's status is now this. Sent once a session unless it changes.
    pub fn pod_status(&self, report: proto::PodStatus) {
        let mut inner = self.lock();
        if inner.gone.contains_key(&report.uid) {
            return;
        }
        let unchanged = inner
            .pods
            .get(&report.uid)
            .is_some_and(|held| held.status == report.status);
        let uid = report.uid.clone();
        inner.pods.insert(uid.clone(), report);
        if !unchanged {
            inner.unsent.insert(uid);
            drop(inner);
            self.ready.notify_one();
        }
    }

    /// Nothing of the pod is left here. Repeated each session until `forget`.
    pub fn pod_gone(&self, report: proto::PodGone) {
        let mut inner = self.lock();
        inner.pods.remove(&report.uid);
        inner.unsent.insert(report.uid.clone());
        inner.gone.insert(report.uid.clone(), report);
        drop(inner);
        self.ready.notify_one();
    }

    pub fn node_status(&self, status: Vec<u8>) {
        let mut inner = self.lock();
        inner.node = Some(proto::NodeStatus { status });
        inner.node_unsent = true;
        drop(inner);
        self.ready.notify_one();
    }

    pub fn event(&self, event: proto::PodEvent) {
        let mut inner = self.lock();
        if inner.events.len() == MAX_EVENTS {
            inner.events.pop_front();
        }
        inner.events.push_back(event);
        drop(inner);
        self.ready.notify_one();
    }

    /// The pod's object is gone: there is nothing to report to.
    pub fn forget(&self, uid: &str) {
        let mut inner = self.lock();
        inner.pods.remove(uid);
        inner.gone.remove(uid);
        inner.unsent.remove(uid);
    }

    /// Drops what is kept of every pod that a complete snapshot did not name.
    pub fn keep_only(&self, uids: &BTreeSet<String>) {
        let mut inner = self.lock();
        inner.pods.retain(|uid, _| uids.contains(uid));
        inner.gone.retain(|uid, _| uids.contains(uid));
        inner.unsent.retain(|uid| uids.contains(uid));
    }

    /// A new session: everything is to be said again.
    pub fn resend_all(&self) {
        let mut inner = self.lock();
        let uids: Vec<String> = inner
            .pods
            .keys()
            .chain(inner.gone.keys())
            .cloned()
            .collect();
        inner.unsent.extend(uids);
        inner.node_unsent = inner.node.is_some();
        drop(inner);
        self.ready.notify_one();
    }

    /// The next report, or none for now.
    pub fn take(&self) -> Option<AgentMessage> {
        let mut inner = self.lock();
        if inner.node_unsent {
            inner.node_unsent = false;
            if let Some(status) = inner.node.clone() {
                return Some(AgentMessage {
                    kind: Some(Kind::NodeStatus(status)),
                });
            }
        }
        while let Some(uid) = inner.unsent.pop_first() {
            if let Some(gone) = inner.gone.get(&uid) {
                return Some(AgentMessage {
                    kind: Some(Kind::PodGone(gone.clone())),
                });
            }
            if let Some(status) = inner.pods.get(&uid) {
                return Some(AgentMessage {
                    kind: Some(Kind::PodStatus(status.clone())),
                });
            }
        }
        inner.events.pop_front().map(|event| AgentMessage {
            kind: Some(Kind::PodEvent(event)),
        })
    }

    /// Returns when there may be something to take.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("no holder of this lock can panic: it only moves values")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(uid: &str, text: &str) -> proto::PodStatus {
        proto::PodStatus {
            uid: uid.into(),
            status: text.into(),
            ..Default::default()
        }
    }

    fn gone(uid: &str) -> proto::PodGone {
        proto::PodGone {
            uid: uid.into(),
            ..Default::default()
        }
    }

    fn drain(outbox: &Outbox) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(message) = outbox.take() {
            all.push(match message.kind.unwrap() {
                Kind::PodStatus(report) => format!(
                    "{}={}",
                    report.uid,
                    String::from_utf8(report.status).unwrap()
                ),
                Kind::PodGone(report) => format!("{} gone", report.uid),
                Kind::NodeStatus(report) => {
                    format!("node={}", String::from_utf8(report.status).unwrap())
                }
                Kind::PodEvent(event) => format!("event {}", event.reason),
                other => format!("{other:?}"),
            });
        }
        all
    }

    #[test]
    fn the_newest_of_each_once_a_session() {
        let outbox = Outbox::default();
        outbox.pod_status(status("a", "1"));
        outbox.pod_status(status("b", "1"));
        outbox.pod_status(status("a", "2"));
        outbox.node_status(b"n".to_vec());
        outbox.event(proto::PodEvent {
            reason: "Pulled".into(),
            ..Default::default()
        });
        assert_eq!(drain(&outbox), ["node=n", "a=2", "b=1", "event Pulled"]);
        outbox.pod_status(status("a", "2"));
        assert_eq!(drain(&outbox), Vec::<String>::new());
        outbox.pod_gone(gone("b"));
        outbox.pod_status(status("b", "late"));
        assert_eq!(drain(&outbox), ["b gone"]);
        outbox.resend_all();
        assert_eq!(drain(&outbox), ["node=n", "a=2", "b gone"]);
        outbox.forget("b");
        outbox.resend_all();
        assert_eq!(drain(&outbox), ["node=n", "a=2"]);
        outbox.keep_only(&BTreeSet::new());
        outbox.resend_all();
        assert_eq!(drain(&outbox), ["node=n"]);
    }
}

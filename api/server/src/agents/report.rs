//! What an agent reports becomes proposals, in its name and under its session's epoch.
//!
//! Reports are level: only the newest of a pod matters, so what waits is replaced and a burst costs one write a pod. A worker writes
//! them one after another; heartbeats never wait for it.

use super::pods::PODS;
use super::route::removed;
use super::session::message;
use crate::core::{Core, Draft, ProposeError};
use agent::proto::{
    Hello, NodeStatus, PodEvent, PodGone, PodStatus, PodStatusRejected, ServerMessage,
    server_message::Kind,
};
use eventstore::{
    Actor, Body, BodyError, Cause, Change, Digest, Expectation, Expected, Intent, Key, Object,
    Rejection, What,
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};

const NODES: &str = "nodes";
const EVENTS: &str = "events";
/// One report's write, with its repetitions.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a write that failed, until it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Pod events that may wait; the newest are dropped past it (they may be lost).
const EVENTS_MAX: usize = 256;

#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    #[error("{0}")]
    Fenced(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Later(String),
}

impl From<ProposeError> for ReportError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Rejected(rejection @ Rejection::Fenced { .. }) => {
                Self::Fenced(rejection.to_string())
            }
            other => Self::Later(other.to_string()),
        }
    }
}

impl From<BodyError> for ReportError {
    fn from(error: BodyError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Writes one agent's reports.
#[derive(Clone)]
pub(super) struct Writer {
    core: Core,
    node: String,
    actor: Actor,
    epoch: u64,
}

impl Writer {
    pub fn new(core: Core, node: &str, epoch: u64) -> Self {
        Self {
            core,
            node: node.to_owned(),
            actor: Actor::Agent {
                node: node.into(),
                epoch,
            },
            epoch,
        }
    }

    /// Creates the Node, or takes over labels under kubernetes.io/ and status.
    pub async fn register(&self, hello: &Hello) -> Result<(), ReportError> {
        let said: Value = serde_json::from_slice(&hello.node)
            .map_err(|error| ReportError::Invalid(format!("Hello.node: {error}")))?;
        let key = Key::new(NODES, "", self.node.as_str());
        self.change(&key, |current| match current {
            None => {
                let mut node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": self.node}, "spec": {}});
                node["metadata"]["labels"] = said["metadata"]["labels"].clone();
                for field in ["podCIDR", "podCIDRs"] {
                    if let Some(value) = said["spec"].get(field) {
                        node["spec"][field] = value.clone();
                    }
                }
                node["status"] = said["status"].clone();
                Ok(Some((Intent::Create, Change { key: key.clone(), what: What::Put { body: Body::cut(&node)?, delete_grace_s: None } })))
            }
            Some(object) => {
                let mut node = object.to_value();
                if let Some(labels) = said["metadata"]["labels"].as_object() {
                    let own = labels.iter().filter(|(name, _)| kubernetes_label(name));
                    for (name, value) in own {
                        node["metadata"]["labels"][name.as_str()] = value.clone();
                    }
                }
                if said["status"].is_object() {
                    node["status"] = said["status"].clone();
                }
                put(object, &node, Intent::Status)
            }
        })
        .await
    }

    async fn write_node_status(&self, report: &NodeStatus) -> Result<(), ReportError> {
        let status: Value = serde_json::from_slice(&report.status)
            .map_err(|error| ReportError::Invalid(format!("NodeStatus: {error}")))?;
        let key = Key::new(NODES, "", self.node.as_str());
        self.change(&key, |current| {
            let Some(object) = current else {
                return Ok(None);
            };
            let mut node = object.to_value();
            node["status"] = status.clone();
            put(object, &node, Intent::Status)
        })
        .await
    }

    async fn write_pod_status(
        &self,
        report: &PodStatus,
        outbound: &mpsc::Sender<ServerMessage>,
    ) -> Result<(), ReportError> {
        let status: Value = serde_json::from_slice(&report.status)
            .map_err(|error| ReportError::Invalid(format!("PodStatus: {error}")))?;
        let key = Key::new(PODS, report.namespace.as_str(), report.name.as_str());
        let view = self.core.view();
        match view.get(&key) {
            Some(object) if object.uid().to_string() == report.uid => {}
            other => {
                // The agent has not heard yet that it went.
                let gone = other.map_or_else(
                    || agent::proto::PodRemoved {
                        namespace: report.namespace.clone(),
                        name: report.name.clone(),
                        uid: report.uid.clone(),
                        revision: view.revision,
                    },
                    |object| agent::proto::PodRemoved {
                        uid: report.uid.clone(),
                        ..removed(object, view.revision)
                    },
                );
                let _ = outbound.try_send(message(Kind::PodRemoved(gone)));
                return Ok(());
            }
        }
        self.change(&key, |current| {
            let Some(object) = current.filter(|object| object.uid().to_string() == report.uid)
            else {
                return Ok(None);
            };
            let mut pod = object.to_value();
            pod["status"] = merged_status(&pod["status"], &status);
            put(object, &pod, Intent::Status)
        })
        .await
    }

    /// All of the pod is gone from the node: the object goes, unless finalizers hold it.
    async fn write_pod_gone(&self, report: &PodGone) -> Result<(), ReportError> {
        let key = Key::new(PODS, report.namespace.as_str(), report.name.as_str());
        let status: Option<Value> = serde_json::from_slice(&report.status).ok();
        self.change(&key, |current| {
            let Some(object) = current.filter(|object| object.uid().to_string() == report.uid)
            else {
                return Ok(None);
            };
            let Some(deletion) = object.stamps.deletion else {
                return Ok(None);
            };
            let mut pod = object.to_value();
            let held = pod["metadata"]["finalizers"]
                .as_array()
                .is_some_and(|finalizers| !finalizers.is_empty());
            if !held {
                let intent = Intent::Remove {
                    reason: format!("its containers are gone from {}", self.node).into(),
                };
                return Ok(Some((
                    intent,
                    Change {
                        key: key.clone(),
                        what: What::Remove,
                    },
                )));
            }
            if let Some(status) = &status {
                pod["status"] = merged_status(&pod["status"], status);
            }
            // Grace 0: whoever takes the last finalizer away removes it.
            match put(object, &pod, Intent::Status)? {
                Some((
                    intent,
                    Change {
                        key,
                        what: What::Put { body, .. },
                    },
                )) => Ok(Some((
                    intent,
                    Change {
                        key,
                        what: What::Put {
                            body,
                            delete_grace_s: Some(0),
                        },
                    },
                ))),
                _ if deletion.grace_s == 0 => Ok(None),
                _ => Ok(Some((
                    Intent::Status,
                    Change {
                        key: key.clone(),
                        what: What::Put {
                            body: object.body(),
                            delete_grace_s: Some(0),
                        },
                    },
                ))),
            }
        })
        .await
    }

    async fn write_pod_event(&self, report: &PodEvent) -> Result<(), ReportError> {
        let parts = [
            &report.uid,
            &report.reason,
            &report.message,
            &report.field_path,
        ]
        .map(|part| part.as_bytes());
        let hash = Digest::of(&parts).to_string();
        let key = Key::new(
            EVENTS,
            report.namespace.as_str(),
            format!("{}.{}", report.name, &hash[..16]),
        );
        let now = self.core.now().to_string();
        self.change(&key, |current| match current {
            None => {
                let mut involved = json!({"kind": "Pod", "namespace": report.namespace, "name": report.name, "uid": report.uid, "apiVersion": "v1"});
                if !report.field_path.is_empty() {
                    involved["fieldPath"] = json!(report.field_path);
                }
                let event = json!({
                    "kind": "Event", "apiVersion": "v1", "metadata": {"name": &*key.name, "namespace": report.namespace},
                    "involvedObject": involved, "reason": report.reason, "message": report.message,
                    "source": {"component": "kubelet", "host": self.node}, "firstTimestamp": now, "lastTimestamp": now, "count": 1,
                    "type": report.r#type, "eventTime": null, "reportingComponent": "kubelet", "reportingInstance": self.node,
                });
                Ok(Some((Intent::Create, Change { key: key.clone(), what: What::Put { body: Body::cut(&event)?, delete_grace_s: None } })))
            }
            Some(object) => {
                let mut event = object.to_value();
                event["count"] = json!(event["count"].as_i64().unwrap_or(1) + 1);
                event["lastTimestamp"] = json!(now);
                put(object, &event, Intent::Update)
            }
        })
        .await
    }

    /// Reads, proposes, and reads afresh when the object has moved, until it is done or time is up.
    async fn change<F>(&self, key: &Key, decide: F) -> Result<(), ReportError>
    where
        F: Fn(Option<&Arc<Object>>) -> Result<Option<(Intent, Change)>, ReportError>,
    {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        let mut request = self.core.request(
            self.actor.clone(),
            Cause {
                revision: self.epoch,
                round: 0,
            },
        );
        let mut view = self.core.view();
        loop {
            let current = view.get(key);
            let Some((intent, change)) = decide(current)? else {
                return Ok(());
            };
            let expected = current.map_or(Expected::Absent, |object| {
                Expected::Revision(object.revision())
            });
            request.cause.revision = current.map_or(self.epoch, |object| object.revision());
            let mut expectations = vec![Expectation {
                key: key.clone(),
                is: expected,
            }];
            if current.is_none() {
                expectations.extend(eventstore::namespace_of(key).map(|key| Expectation {
                    key,
                    is: Expected::Living,
                }));
            }
            let draft = Draft::objects(intent, expectations, vec![change]);
            match self.core.propose(&mut request, draft, deadline).await {
                Ok(_) => return Ok(()),
                Err(ProposeError::Rejected(Rejection::Expectation {
                    key: moved,
                    current,
                    ..
                })) if moved == *key => {
                    let revision = current.unwrap_or(0);
                    view = self
                        .core
                        .not_older_than(revision, deadline)
                        .await
                        .map_err(|late| ReportError::Later(late.to_string()))?;
                }
                // Its namespace is gone or going: nothing is to be written there any more.
                Err(ProposeError::Rejected(Rejection::Expectation { .. })) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn kubernetes_label(name: &str) -> bool {
    let prefix = name.split_once('/').map_or("", |(prefix, _)| prefix);
    prefix == "kubernetes.io" || prefix.ends_with(".kubernetes.io")
}

/// A Put of what has changed; None when nothing has.
fn put(
    object: &Object,
    value: &Value,
    intent: Intent,
) -> Result<Option<(Intent, Change)>, ReportError> {
    let body = Body::cut(value)?;
    if body == object.body() {
        return Ok(None);
    }
    Ok(Some((
        intent,
        Change {
            key: object.key.clone(),
            what: What::Put {
                body,
                delete_grace_s: None,
            },
        },
    )))
}

/// The agent's status, with what others write in it carried over: conditions it does not name, the QoS class, nominations.
fn merged_status(before: &Value, said: &Value) -> Value {
    let mut status = said.as_object().cloned().unwrap_or_else(Map::new);
    for field in ["qosClass", "nominatedNodeName", "resourceClaimStatuses"] {
        if let (None, Some(value)) = (status.get(field), before.get(field)) {
            status.insert(field.to_owned(), value.clone());
        }
    }
    let mut conditions = status
        .get("conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for condition in before["conditions"].as_array().into_iter().flatten() {
        if !conditions
            .iter()
            .any(|said| said["type"] == condition["type"])
        {
            conditions.push(condition.clone());
        }
    }
    status.insert("conditions".to_owned(), Value::Array(conditions));
    Value::Object(status)
}

/// What waits to be written, the newest of each.
#[derive(Default)]
struct Pending {
    order: VecDeque<String>,
    pods: BTreeMap<String, PodReport>,
    node: Option<NodeStatus>,
    events: VecDeque<PodEvent>,
    fenced: Option<String>,
}

enum PodReport {
    Status(PodStatus),
    Gone(PodGone),
}

enum Next {
    Node(NodeStatus),
    Pod(PodReport),
    Event(PodEvent),
}

/// Where a session's reader puts reports.
#[derive(Clone)]
pub(super) struct Reports {
    pending: Arc<Mutex<Pending>>,
    more: Arc<Notify>,
}

impl Reports {
    pub fn pod_status(&self, status: PodStatus) {
        self.add(|pending| {
            let uid = status.uid.clone();
            if !pending.pods.contains_key(&uid) {
                pending.order.push_back(uid.clone());
            }
            pending.pods.insert(uid, PodReport::Status(status));
        });
    }

    pub fn pod_gone(&self, gone: PodGone) {
        self.add(|pending| {
            let uid = gone.uid.clone();
            if !pending.pods.contains_key(&uid) {
                pending.order.push_back(uid.clone());
            }
            pending.pods.insert(uid, PodReport::Gone(gone));
        });
    }

    pub fn node_status(&self, status: NodeStatus) {
        self.add(|pending| pending.node = Some(status));
    }

    pub fn pod_event(&self, event: PodEvent) {
        self.add(|pending| {
            if pending.events.len() < EVENTS_MAX {
                pending.events.push_back(event);
            }
        });
    }

    /// Why this session may write no more.
    pub fn fenced(&self) -> Option<String> {
        self.lock().fenced.clone()
    }

    fn add(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.lock());
        self.more.notify_one();
    }

    fn next(&self) -> Option<Next> {
        let mut pending = self.lock();
        if let Some(status) = pending.node.take() {
            return Some(Next::Node(status));
        }
        if let Some(uid) = pending.order.pop_front() {
            return pending.pods.remove(&uid).map(Next::Pod);
        }
        pending.events.pop_front().map(Next::Event)
    }

    /// Puts back what could not be written, unless something newer has come.
    fn put_back(&self, next: Next) {
        let mut pending = self.lock();
        match next {
            Next::Node(status) => {
                pending.node.get_or_insert(status);
            }
            Next::Pod(report) => {
                let uid = match &report {
                    PodReport::Status(status) => status.uid.clone(),
                    PodReport::Gone(gone) => gone.uid.clone(),
                };
                if !pending.pods.contains_key(&uid) {
                    pending.order.push_back(uid.clone());
                    pending.pods.insert(uid, report);
                }
            }
            Next::Event(event) => pending.events.push_front(event),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        // A panic while it was held left whole reports: as good as before.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worker that writes a session's reports, until it is aborted or fenced.
pub(super) fn worker(
    writer: Writer,
    outbound: mpsc::Sender<ServerMessage>,
) -> (Reports, impl Future<Output = ()>) {
    let reports = Reports {
        pending: Arc::default(),
        more: Arc::new(Notify::new()),
    };
    let taken = reports.clone();
    let work = async move {
        loop {
            let Some(next) = taken.next() else {
                taken.more.notified().await;
                continue;
            };
            let result = match &next {
                Next::Node(status) => writer.write_node_status(status).await,
                Next::Pod(PodReport::Status(status)) => {
                    writer.write_pod_status(status, &outbound).await
                }
                Next::Pod(PodReport::Gone(gone)) => writer.write_pod_gone(gone).await,
                Next::Event(event) => writer.write_pod_event(event).await,
            };
            match result {
                Ok(()) => {}
                Err(ReportError::Fenced(reason)) => {
                    taken.lock().fenced = Some(reason);
                    return;
                }
                Err(ReportError::Invalid(reason)) => {
                    if let Next::Pod(PodReport::Status(status)) = next {
                        let rejected = PodStatusRejected {
                            namespace: status.namespace,
                            name: status.name,
                            uid: status.uid,
                            reason,
                        };
                        let _ = outbound.try_send(message(Kind::PodStatusRejected(rejected)));
                    }
                }
                Err(ReportError::Later(reason)) => {
                    tracing::debug!(node = writer.node, reason, "a report waits");
                    taken.put_back(next);
                    sleep(RETRY).await;
                }
            }
        }
    };
    (reports, work)
}

//! Plays a server to an agent, over channels.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::proto::agent_message::Kind as Up;
use agent::proto::server_message::Kind as Down;
use agent::proto::{self, AgentMessage, ServerMessage};
use agent::{Connection, DialError, Dialer};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// What the agent has said, and the way to speak to it.
#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    revision: u64,
    pods: BTreeMap<String, (Value, u64)>,
    objects: Vec<(String, String, Option<Value>)>,
    down: Option<mpsc::Sender<ServerMessage>>,
    statuses: BTreeMap<String, Vec<Value>>,
    gone: Vec<String>,
    events: Vec<(String, String)>,
    streams: BTreeMap<u64, (Vec<u8>, Option<proto::StreamData>)>,
    node: Value,
    sessions: u64,
}

#[async_trait::async_trait]
impl Dialer for Server {
    async fn dial(&self, _: &str) -> Result<Connection, DialError> {
        let ((up, mut up_rx), (down_tx, down)) = (mpsc::channel(64), mpsc::channel(1024));
        let server = self.clone();
        tokio::spawn(async move {
            while let Some(message) = up_rx.recv().await {
                server.heard(message, &down_tx);
            }
        });
        Ok(Connection {
            up,
            down: ReceiverStream::new(down).map(Ok).boxed(),
        })
    }
}

impl Server {
    fn heard(&self, message: AgentMessage, down: &mpsc::Sender<ServerMessage>) {
        let mut state = self.0.lock().unwrap();
        let say = |kind: Down| {
            let _ = down.try_send(ServerMessage { kind: Some(kind) });
        };
        match message.kind.unwrap() {
            Up::Hello(hello) => {
                state.node = serde_json::from_slice(&hello.node).unwrap();
                state.revision += 1;
                state.sessions += 1;
                state.down = Some(down.clone());
                let (epoch, revision) = (state.revision, state.revision);
                say(Down::Welcome(proto::Welcome {
                    epoch,
                    cluster_id: "test".into(),
                    revision,
                    ..Default::default()
                }));
                for (resource, name, object) in &state.objects {
                    say(object_message(resource, name, object.as_ref(), revision));
                }
                for (pod, revision) in state.pods.values() {
                    say(assigned(pod, *revision));
                }
                say(Down::SnapshotEnd(proto::SnapshotEnd { revision }));
            }
            Up::Heartbeat(_) => say(Down::HeartbeatAck(proto::HeartbeatAck {
                revision: state.revision,
            })),
            Up::PodStatus(report) => {
                let status: Value = serde_json::from_slice(&report.status).unwrap();
                state.revision += 1;
                let revision = state.revision;
                if let Some((pod, at)) = state.pods.get_mut(&report.uid)
                    && pod["status"] != status
                {
                    // It comes back as a change, as from a real server, which has an order of fields of its own.
                    pod["status"] = sorted(&status);
                    *at = revision;
                    say(assigned(pod, revision));
                }
                state.statuses.entry(report.uid).or_default().push(status);
            }
            Up::PodGone(gone) => state.gone.push(gone.uid),
            Up::PodEvent(event) => state
                .events
                .push((event.uid, format!("{}: {}", event.reason, event.message))),
            Up::StreamData(data) => {
                let stream = state.streams.entry(data.id).or_default();
                stream.0.extend_from_slice(&data.data);
                if data.end {
                    stream.1 = Some(data);
                }
            }
            Up::NodeStatus(_) => {}
        }
    }

    fn say(&self, kind: Down) {
        let state = self.0.lock().unwrap();
        if let Some(down) = &state.down {
            let _ = down.try_send(ServerMessage { kind: Some(kind) });
        }
    }

    /// A pod bound to the node. Its uid is `<name>-uid`.
    pub fn create(&self, name: &str, mut spec: Value) -> String {
        let uid = format!("{name}-uid");
        if spec["terminationGracePeriodSeconds"].is_null() {
            spec["terminationGracePeriodSeconds"] = json!(5);
        }
        self.set(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": uid, "labels": {"app": name}},
            "spec": spec,
            "status": {"phase": "Pending", "qosClass": "BestEffort",
                "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }));
        uid
    }

    pub fn set(&self, pod: Value) {
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let revision = {
            let mut state = self.0.lock().unwrap();
            state.revision += 1;
            let revision = state.revision;
            state.pods.insert(uid, (pod.clone(), revision));
            revision
        };
        self.say(assigned(&pod, revision));
    }

    /// As `kubectl delete` does it: the object gets a deletionTimestamp, and goes when the agent says so.
    pub fn delete(&self, uid: &str, grace_s: u64) {
        let mut pod = self.0.lock().unwrap().pods[uid].0.clone();
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace_s);
        self.set(pod);
    }

    pub fn object(&self, resource: &str, name: &str, object: Option<Value>) {
        let revision = {
            let mut state = self.0.lock().unwrap();
            state.revision += 1;
            state
                .objects
                .retain(|(held, other, _)| (held.as_str(), other.as_str()) != (resource, name));
            state
                .objects
                .push((resource.to_owned(), name.to_owned(), object.clone()));
            state.revision
        };
        self.say(object_message(resource, name, object.as_ref(), revision));
    }

    pub fn status(&self, uid: &str) -> Value {
        self.0
            .lock()
            .unwrap()
            .statuses
            .get(uid)
            .and_then(|all| all.last().cloned())
            .unwrap_or(Value::Null)
    }

    pub fn history(&self, uid: &str) -> Vec<Value> {
        self.0
            .lock()
            .unwrap()
            .statuses
            .get(uid)
            .cloned()
            .unwrap_or_default()
    }

    pub fn node(&self) -> Value {
        self.0.lock().unwrap().node.clone()
    }

    pub fn sessions(&self) -> u64 {
        self.0.lock().unwrap().sessions
    }

    pub fn events(&self, uid: &str) -> Vec<String> {
        self.0
            .lock()
            .unwrap()
            .events
            .iter()
            .filter(|(of, _)| of == uid)
            .map(|(_, text)| text.clone())
            .collect()
    }

    /// Waits until the pod's status is as wanted; tells the last one if it never is.
    pub async fn until(&self, uid: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1200 {
            let status = self.status(uid);
            if wanted(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "{uid}: not {what} within a minute: {:#}\n{:#?}",
            self.status(uid),
            self.events(uid)
        );
    }

    pub async fn until_gone(&self, uid: &str) {
        for _ in 0..1200 {
            if self.0.lock().unwrap().gone.iter().any(|gone| gone == uid) {
                let revision = {
                    let mut state = self.0.lock().unwrap();
                    state.pods.remove(uid);
                    state.revision += 1;
                    state.revision
                };
                let name = uid.trim_end_matches("-uid").to_owned();
                self.say(Down::PodRemoved(proto::PodRemoved {
                    namespace: "default".into(),
                    name,
                    uid: uid.into(),
                    revision,
                }));
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "{uid} never went: {:#}\n{:#?}",
            self.status(uid),
            self.events(uid)
        );
    }

    /// Opens a log stream; `logs` waits for it.
    pub fn open_logs(
        &self,
        id: u64,
        name: &str,
        container: &str,
        set: impl FnOnce(&mut proto::Logs),
    ) {
        let mut logs = proto::Logs {
            namespace: "default".into(),
            pod: name.into(),
            uid: format!("{name}-uid"),
            container: container.into(),
            ..Default::default()
        };
        set(&mut logs);
        let kind = Some(proto::stream_open::Kind::Logs(logs));
        self.say(Down::StreamOpen(proto::StreamOpen {
            id,
            credit_bytes: 0,
            kind,
        }));
    }

    /// What a stream has brought so far, and its end.
    pub fn stream(&self, id: u64) -> (String, Option<proto::StreamData>) {
        let state = self.0.lock().unwrap();
        let (text, end) = state.streams.get(&id).cloned().unwrap_or_default();
        (String::from_utf8(text).unwrap(), end)
    }

    pub async fn logs(
        &self,
        id: u64,
        name: &str,
        container: &str,
        set: impl FnOnce(&mut proto::Logs),
    ) -> (String, Option<String>) {
        self.open_logs(id, name, container, set);
        for _ in 0..200 {
            if let (text, Some(end)) = self.stream(id) {
                return (text, end.error);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("log stream {id} does not end: {:?}", self.stream(id));
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            fields
                .into_iter()
                .map(|(name, field)| (name.clone(), sorted(field)))
                .collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

fn assigned(pod: &Value, revision: u64) -> Down {
    Down::PodAssigned(proto::PodAssigned {
        pod: pod.to_string().into_bytes(),
        revision,
    })
}

fn object_message(resource: &str, name: &str, object: Option<&Value>, revision: u64) -> Down {
    Down::Object(proto::Object {
        resource: resource.into(),
        namespace: "default".into(),
        name: name.into(),
        json: object.map(|object| object.to_string().into_bytes()),
        revision,
    })
}

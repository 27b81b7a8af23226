//! What clients do: each is one caller that writes, reads and counts through a server's API, and remembers what it was told.
//!
//! A client that gets no answer knows nothing of the outcome, and says so to the checks.

use crate::cluster::Fronts;
use crate::invariants::Violation;
use crate::invariants::acknowledged::{Acknowledged, Counter, Write};
use crate::invariants::linearizable::{self, Operation};
use crate::sides::{Chance, Fate, SimNet};
use bytes::Bytes;
use eventstore::Key;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use server::http::{Caller, ClientCertificate};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long a client waits for an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client counts it writes on the beat, as cron jobs do: several at the same moment, through different servers, is what
/// conflicts are made of.
const BEAT: Duration = Duration::from_secs(1);
const NAMESPACE: &str = "default";
/// Objects that all clients share.
const COUNTERS: u64 = 3;
pub const DEPLOYMENTS: u64 = 3;
const REPLICAS_MAX: u64 = 6;
/// Kinds of the core group, and how many of each there are at most.
const OTHER_KINDS: [&str; 4] = ["secrets", "services", "serviceaccounts", "pods"];
const OTHERS: u64 = 2;

/// What all clients were told, and how often.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Books>>);

#[derive(Default)]
pub struct Books {
    pub acknowledged: Acknowledged,
    pub operations: Vec<Operation>,
    pub writes: u64,
    pub refused: u64,
    pub unknown: u64,
    /// An answer that can't be right.
    pub wrong: Option<Violation>,
}

impl Books {
    fn counter(&mut self, name: &str) -> &mut Counter {
        self.acknowledged.counters.entry(key(name)).or_default()
    }
}

impl Told {
    pub fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One caller.
pub struct Client {
    pub name: String,
    pub fronts: Fronts,
    pub net: SimNet,
    pub chance: Chance,
    pub told: Told,
    /// The same for all clients.
    started: Instant,
    number: u64,
    own: Vec<String>,
    /// Names that it has deleted.
    gone: Vec<String>,
}

pub enum Answer {
    Done(Value),
    Refused(StatusCode, Value),
    /// It may have been done.
    Unknown,
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(object) => write!(
                formatter,
                "done at {}",
                object["metadata"]["resourceVersion"]
            ),
            Self::Refused(code, status) => write!(formatter, "{code}: {}", status["message"]),
            Self::Unknown => formatter.write_str("unknown"),
        }
    }
}

impl Client {
    pub fn new(index: u64, seed: u64, fronts: Fronts, net: SimNet, told: Told) -> Self {
        let chance = Chance::new(seed, 300 + index);
        Self {
            name: format!("client-{index}"),
            fronts,
            net,
            chance,
            told,
            started: Instant::now(),
            number: 0,
            own: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// Until it is aborted.
    pub async fn run(mut self, pause_ms: (u64, u64)) {
        loop {
            let pause = self.chance.between(pause_ms.0, pause_ms.1);
            sleep(Duration::from_millis(pause)).await;
            match self.chance.below(14) {
                0..=2 => self.create().await,
                3 | 4 => self.update().await,
                5 => self.delete().await,
                6 | 7 => self.count().await,
                8 => self.scale().await,
                9 | 10 => self.look().await,
                11 => self.kill_pod().await,
                _ => self.other_kinds().await,
            }
        }
    }

    async fn create(&mut self) {
        self.number += 1;
        let name = format!("{}-{}", self.name, self.number);
        let marker = format!("made-{name}");
        let object = config_map(&name, &marker);
        let asked = Instant::now();
        match self.ask(Method::POST, &maps(""), Some(&object)).await {
            Answer::Done(object) => {
                self.acknowledge(&name, &object, &marker);
                self.wrote(asked, &name, &object);
                self.own.push(name);
            }
            // Nobody else makes this name.
            Answer::Refused(StatusCode::CONFLICT, status) => {
                let what = format!(
                    "{name}, which only {} makes, was refused: {}",
                    self.name, status["message"]
                );
                self.told
                    .lock()
                    .wrong
                    .get_or_insert(Violation::new("done once", what));
            }
            Answer::Refused(..) => self.told.lock().refused += 1,
            Answer::Unknown => self.told.lock().unknown += 1,
        }
    }

    async fn update(&mut self) {
        let Some(name) = self.chance.pick(&self.own).cloned() else {
            return;
        };
        self.number += 1;
        let marker = format!("set-{}-{}", self.name, self.number);
        let asked = Instant::now();
        match self
            .ask(Method::PUT, &maps(&name), Some(&config_map(&name, &marker)))
            .await
        {
            Answer::Done(object) => {
                self.acknowledge(&name, &object, &marker);
                self.wrote(asked, &name, &object);
            }
            Answer::Refused(..) => self.told.lock().refused += 1,
            Answer::Unknown => self.told.lock().unknown += 1,
        }
    }

    async fn delete(&mut self) {
        if self.own.len() < 5 {
            return;
        }
        let name = self
            .own
            .remove(self.chance.below(self.own.len() as u64) as usize);
        self.gone.push(name.clone());
        let asked = Instant::now();
        match self.ask(Method::DELETE, &maps(&name), None).await {
            Answer::Done(_) => {
                self.was_told(asked, &name, linearizable::Told::Deleted);
                let mut told = self.told.lock();
                told.writes += 1;
                told.acknowledged.writes.push(Write {
                    key: key(&name),
                    revision: Write::FOR_GOOD,
                    marker: None,
                });
            }
            Answer::Refused(..) => self.told.lock().refused += 1,
            Answer::Unknown => self.told.lock().unknown += 1,
        }
    }

    /// Reads a counter and, on the beat, writes it back one higher, naming the version that was read: of two who read the same, one is
    /// refused.
    async fn count(&mut self) {
        let name = format!("counter-{}", self.chance.below(COUNTERS));
        let Some(mut counter) = self.get(&name).await else {
            return;
        };
        let value: u64 = counter["data"]["value"]
            .as_str()
            .and_then(|value| value.parse().ok())
            .unwrap_or(0);
        counter["data"]["value"] = json!((value + 1).to_string());
        let beats = self.started.elapsed().as_secs() as u32 + 1;
        sleep_until(self.started + BEAT * beats).await;
        // Unknown until it is known: the run may end before the answer.
        self.told.lock().counter(&name).unknown += 1;
        let asked = Instant::now();
        let answer = self.ask(Method::PUT, &maps(&name), Some(&counter)).await;
        tracing::debug!(client = self.name, name, read = value, %answer, "count");
        if let Answer::Done(object) = &answer {
            self.wrote(asked, &name, object);
        }
        let mut told = self.told.lock();
        match answer {
            Answer::Done(object) => {
                told.writes += 1;
                let counter = told.counter(&name);
                counter.acknowledged += 1;
                counter.unknown -= 1;
                counter.revision = counter.revision.max(revision(&object));
            }
            Answer::Refused(..) => {
                told.refused += 1;
                told.counter(&name).unknown -= 1;
            }
            Answer::Unknown => told.unknown += 1,
        }
    }

    /// Looks at something that others may be writing, that it wrote itself, or that is gone.
    async fn look(&mut self) {
        let name = match self.chance.below(4) {
            0 | 1 => Some(format!("counter-{}", self.chance.below(COUNTERS))),
            2 => self.chance.pick(&self.own).cloned(),
            _ => self.chance.pick(&self.gone).cloned(),
        };
        if let Some(name) = name {
            self.get(&name).await;
        }
    }

    async fn get(&mut self, name: &str) -> Option<Value> {
        let asked = Instant::now();
        match self.ask(Method::GET, &maps(name), None).await {
            Answer::Done(object) => {
                let found = linearizable::Told::Found(revision(&object));
                self.was_told(asked, name, found);
                Some(object)
            }
            Answer::Refused(StatusCode::NOT_FOUND, _) => {
                self.was_told(asked, name, linearizable::Told::Absent);
                None
            }
            Answer::Refused(..) | Answer::Unknown => None,
        }
    }

    fn wrote(&self, asked: Instant, name: &str, object: &Value) {
        self.was_told(asked, name, linearizable::Told::Wrote(revision(object)));
    }

    fn was_told(&self, asked: Instant, name: &str, told: linearizable::Told) {
        self.told.lock().operations.push(Operation {
            client: self.name.clone(),
            asked,
            answered: Instant::now(),
            key: key(name),
            told,
        });
    }

    async fn scale(&mut self) {
        let path = format!(
            "/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{}",
            deployment_name(self.chance.below(DEPLOYMENTS))
        );
        let mut patch = json!({"spec": {"replicas": self.chance.below(REPLICAS_MAX + 1)}});
        if self.chance.happens(300_000) {
            self.number += 1;
            let version = format!("{}-{}", self.name, self.number);
            patch["spec"]["template"] = json!({"metadata": {"annotations": {"version": version}}});
        }
        let answer = self.ask(Method::PATCH, &path, Some(&patch)).await;
        self.note(&answer);
    }

    async fn kill_pod(&mut self) {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let Answer::Done(pods) = self.ask(Method::GET, &path, None).await else {
            return;
        };
        let names: Vec<_> = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|pod| pod["metadata"]["name"].as_str())
            .collect();
        let Some(name) = self.chance.pick(&names) else {
            return;
        };
        let answer = self
            .ask(Method::DELETE, &format!("{path}/{name}"), None)
            .await;
        self.note(&answer);
    }

    /// Makes, changes or deletes one of a few that all clients share, of kinds that nothing else is asked of: so that there is
    /// something of them to be restored.
    async fn other_kinds(&mut self) {
        let kind = self.chance.below(OTHER_KINDS.len() as u64) as usize;
        let name = format!("other-{}", self.chance.below(OTHERS));
        let collection = format!("/api/v1/namespaces/{NAMESPACE}/{}", OTHER_KINDS[kind]);
        let path = format!("{collection}/{name}");
        let answer = match self.chance.below(4) {
            0 | 1 => {
                let object = other(OTHER_KINDS[kind], &name);
                self.ask(Method::POST, &collection, Some(&object)).await
            }
            2 => {
                self.number += 1;
                let label = format!("{}-{}", self.name, self.number);
                let patch = json!({"metadata": {"labels": {"changed": label}}});
                self.ask(Method::PATCH, &path, Some(&patch)).await
            }
            _ => self.ask(Method::DELETE, &path, None).await,
        };
        self.note(&answer);
    }

    fn note(&self, answer: &Answer) {
        let mut told = self.told.lock();
        match answer {
            Answer::Done(_) => told.writes += 1,
            Answer::Refused(..) => told.refused += 1,
            Answer::Unknown => told.unknown += 1,
        }
    }

    fn acknowledge(&self, name: &str, object: &Value, marker: &str) {
        let mut told = self.told.lock();
        told.writes += 1;
        told.acknowledged.writes.push(Write {
            key: key(name),
            revision: revision(object),
            marker: Some(marker.to_owned()),
        });
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let servers = self.fronts.members();
        let Some(server) = self.chance.pick(&servers) else {
            return Answer::Unknown;
        };
        let what = format!("{method} {path}");
        let (fronts, net) = (&self.fronts, &self.net);
        let asked = ask(fronts, net, &self.name, server, method, path, body);
        let answer = timeout(ANSWER_TIMEOUT, asked).await;
        let answer = answer.unwrap_or(Answer::Unknown);
        if let Some(code) = unpromised(&answer) {
            let what = format!("{server} answered {what} with {code}: {answer}");
            let wrong = Violation::new("refusals have a reason", what);
            self.told.lock().wrong.get_or_insert(wrong);
        }
        answer
    }
}

/// What a refusal of a right request may be: of what is not there or is there already, for want of room, of patience or of a leader. Each
/// says that nothing was done.
const REFUSALS: [StatusCode; 5] = [
    StatusCode::NOT_FOUND,
    StatusCode::CONFLICT,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::INSUFFICIENT_STORAGE,
];

/// The code of a refusal that is none of those.
fn unpromised(answer: &Answer) -> Option<StatusCode> {
    match answer {
        Answer::Refused(code, _) if !REFUSALS.contains(code) => Some(*code),
        Answer::Refused(..) | Answer::Done(_) | Answer::Unknown => None,
    }
}

/// One request; who calls under a server's name shows a server's certificate, any other an administrator's.
pub async fn ask(
    fronts: &Fronts,
    net: &SimNet,
    name: &str,
    server: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Answer {
    match net.fate(name, server) {
        Fate::Arrives(after) => sleep(after).await,
        Fate::Lost | Fate::Cut => {
            return Answer::Refused(StatusCode::SERVICE_UNAVAILABLE, Value::Null);
        }
    }
    let Some((api, mut dead)) = fronts.api(server) else {
        return Answer::Refused(StatusCode::SERVICE_UNAVAILABLE, Value::Null);
    };
    let kind = if method == Method::PATCH {
        "application/merge-patch+json"
    } else {
        "application/json"
    };
    let bytes = body.map_or_else(Bytes::new, |body| body.to_string().into());
    let request = Request::builder()
        .method(&method)
        .uri(&*fronts.path(&method, path))
        .header(header::CONTENT_TYPE, kind)
        .header(header::ACCEPT, "application/json");
    let Ok(request) = request.body(Full::new(bytes)) else {
        return Answer::Unknown;
    };
    let answered = tokio::select! {
        biased;
        _ = dead.wait_for(|dead| *dead) => return Answer::Unknown,
        answer = api.handle(request, caller(name)) => answer,
    };
    let status = answered.status();
    let Ok(body) = answered.into_body().collect().await else {
        return Answer::Unknown;
    };
    let value = serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null);
    match net.fate(server, name) {
        Fate::Arrives(after) => sleep(after).await,
        Fate::Lost | Fate::Cut => return Answer::Unknown,
    }
    match status {
        status if status.is_success() => Answer::Done(value),
        // It says itself that the outcome is not known; nothing else says so.
        StatusCode::GATEWAY_TIMEOUT => {
            tracing::info!(%status, %value, path, "an answer that does not tell");
            Answer::Unknown
        }
        status => Answer::Refused(status, value),
    }
}

/// Makes what the clients share, through whichever server answers.
pub async fn prepare(fronts: &Fronts, net: &SimNet, servers: &[String]) {
    let counters =
        (0..COUNTERS).map(|index| (maps(""), config_map(&format!("counter-{index}"), "0")));
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    let deployments =
        (0..DEPLOYMENTS).map(|index| (path.clone(), deployment(&deployment_name(index))));
    for (path, object) in counters.chain(deployments) {
        for attempt in 0.. {
            let server = &servers[attempt % servers.len()];
            let answer = timeout(
                ANSWER_TIMEOUT,
                ask(
                    fronts,
                    net,
                    "preparer",
                    server,
                    Method::POST,
                    &path,
                    Some(&object),
                ),
            )
            .await;
            match answer {
                Ok(Answer::Done(_) | Answer::Refused(StatusCode::CONFLICT, _)) => break,
                Ok(Answer::Refused(..) | Answer::Unknown) | Err(_) => {
                    sleep(Duration::from_millis(300)).await
                }
            }
        }
    }
}

fn caller(name: &str) -> Caller {
    let group = if name.starts_with("server-") {
        "system:reckon:servers"
    } else {
        "system:masters"
    };
    let certificate = ClientCertificate {
        common_name: name.to_owned(),
        organizations: vec![group.to_owned()],
    };
    Caller::new(([127, 0, 0, 1], 50_000).into(), Some(Arc::new(certificate)))
}

fn revision(object: &Value) -> u64 {
    let revision = object["metadata"]["resourceVersion"].as_str();
    revision
        .and_then(|revision| revision.parse().ok())
        .unwrap_or(0)
}

fn key(name: &str) -> Key {
    Key::new("configmaps", NAMESPACE, name)
}

fn maps(name: &str) -> String {
    let slash = if name.is_empty() { "" } else { "/" };
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps{slash}{name}")
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}, "data": {"value": value}})
}

fn other(kind: &str, name: &str) -> Value {
    let mut object = json!({"metadata": {"name": name, "namespace": NAMESPACE}});
    match kind {
        "secrets" => object["stringData"] = json!({"key": name}),
        "services" => {
            object["spec"] = json!({"selector": {"app": name}, "ports": [{"port": 80}]});
        }
        "pods" => object["spec"] = json!({"containers": [{"name": "one", "image": "one:1"}]}),
        _ => {}
    }
    object
}

fn deployment_name(index: u64) -> String {
    format!("web-{index}")
}

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": "web:1", "resources": {"requests": {"cpu": "500m"}}}]},
            },
        },
    })
}

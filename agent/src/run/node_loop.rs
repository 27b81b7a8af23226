//! The agent's main loop: commands from the session to the pods' workers, what the runtime shows, the node's status. It waits for no
//! container and no runtime: whatever takes long is a worker's, or a round's of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Pods;
use super::rounds::Look;
use crate::node::{Health, Machine, without_heartbeat};
use crate::objects;
use crate::pod::Pod;
use crate::proto;
use crate::runtime::Held;
use crate::session::{Command, ObjectKey};
use crate::streams::Streams;
use crate::worker::{self, NodeContext};

const NODE_STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// An unchanged node status is repeated this often (the kubelet's nodeStatusReportFrequency).
const NODE_STATUS_REPEAT: Duration = Duration::from_secs(300);

/// ConfigMaps and Secrets that are held. Past it those that no pod refers to are dropped; a snapshot drops them in any case.
const MAX_OBJECTS: usize = 8_192;

pub(super) struct NodeLoop {
    context: Arc<NodeContext>,
    machine: Machine,
    data_dir: PathBuf,
    health: Arc<Mutex<Health>>,
    /// The node's status as last reported.
    status: Arc<Mutex<Value>>,
    status_sent: Option<Instant>,
    streams: Streams,
    pods: Pods,
    /// Pods of which nothing is left, until their object is gone.
    gone: BTreeSet<String>,
    /// A snapshot was complete: what is not assigned may be removed.
    complete: bool,
    held: BTreeMap<String, Held>,
}

/// An agent that is dropped acts no more: its pods run on without it.
impl Drop for NodeLoop {
    fn drop(&mut self) {
        self.pods.values().for_each(|(_, task)| task.abort());
    }
}

impl NodeLoop {
    pub fn new(
        context: Arc<NodeContext>,
        machine: Machine,
        data_dir: PathBuf,
        health: Arc<Mutex<Health>>,
        status: Arc<Mutex<Value>>,
        streams: mpsc::Sender<proto::StreamData>,
    ) -> Self {
        let streams = Streams::new(context.clone(), streams);
        NodeLoop {
            context,
            machine,
            data_dir,
            health,
            status,
            status_sent: None,
            streams,
            pods: Pods::new(),
            gone: BTreeSet::new(),
            complete: false,
            held: BTreeMap::new(),
        }
    }

    /// Until the session's link has gone.
    pub async fn run(
        &mut self,
        mut commands: mpsc::Receiver<Command>,
        mut looks: mpsc::Receiver<Look>,
    ) {
        let mut report = interval(NODE_STATUS_INTERVAL);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(look) = looks.recv() => self.looked(look),
                _ = report.tick() => self.report(),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Welcomed { epoch, cluster_id } => {
                tracing::info!(epoch, cluster_id, "session opened");
            }
            Command::Assign { pod, revision } => self.assign(&pod, revision),
            Command::Remove { uid, .. } => self.remove(&uid),
            Command::Object { key, object } => {
                if self.context.objects.set(key.clone(), object.as_ref()) > MAX_OBJECTS {
                    self.drop_objects(Some(&key));
                }
                for (handle, _) in self.pods.values() {
                    if objects::references(&handle.pod()).contains(&key) {
                        handle.refresh();
                    }
                }
            }
            Command::Complete { uids } => {
                self.context.outbox.keep_only(&uids);
                self.gone.retain(|uid| uids.contains(uid));
                let unnamed: Vec<String> = self
                    .pods
                    .keys()
                    .filter(|uid| !uids.contains(*uid))
                    .cloned()
                    .collect();
                unnamed.iter().for_each(|uid| self.remove(uid));
                self.complete = true;
                // Not with each pod that goes: an object may come before the pod that names it.
                self.drop_objects(None);
            }
            Command::Stream(command) => self.streams.obey(command),
            Command::StatusRejected { uid, reason } => {
                tracing::warn!(uid, reason, "a status was refused")
            }
        }
    }

    /// Forgets the objects that no pod refers to.
    fn drop_objects(&self, but: Option<&ObjectKey>) {
        let wanted: BTreeSet<_> = self
            .pods
            .values()
            .flat_map(|(handle, _)| objects::references(&handle.pod()))
            .collect();
        self.context
            .objects
            .retain(|key| wanted.contains(key) || Some(key) == but);
    }

    fn assign(&mut self, object: &Value, revision: u64) {
        let pod = match Pod::parse(object) {
            Ok(pod) => pod,
            Err(error) => {
                let meta = &object["metadata"];
                tracing::error!(pod = %meta["name"], %error, "a pod that this agent cannot read");
                return;
            }
        };
        let uid = pod.metadata.uid.clone();
        if self.gone.contains(&uid) {
            // It was said already, and is said again in each session.
            return;
        }
        match self.pods.get(&uid) {
            Some((handle, task)) if !task.is_finished() => handle.changed(pod, revision),
            _ => {
                let worker = worker::spawn(self.context.clone(), pod, revision);
                self.pods.insert(uid, worker);
            }
        }
    }

    fn remove(&mut self, uid: &str) {
        self.context.outbox.forget(uid);
        self.gone.remove(uid);
        if let Some((handle, _)) = self.pods.get(uid) {
            handle.removed();
        }
    }

    /// Takes in what the runtime shows: wakes the workers whose pods look different, and takes down what nobody assigned.
    fn looked(&mut self, look: Look) {
        let health = look.map(|held| self.compare(held));
        let changed = {
            let mut held = self
                .health
                .lock()
                .expect("no holder of this lock can panic: it only moves values");
            let changed = held.is_ok() != health.is_ok();
            *held = health;
            changed
        };
        if changed {
            self.report();
        }
        let finished: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, (_, task))| task.is_finished())
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in finished {
            let Some((handle, _)) = self.pods.remove(&uid) else {
                continue;
            };
            if handle.is_removed() {
                continue;
            }
            if handle.pod().is_deleted() {
                self.gone.insert(uid);
                continue;
            }
            // A worker ends only with its pod: this one has panicked. Its pod goes on with another.
            tracing::error!(pod = handle.pod().path(), "a worker has panicked");
            let worker = handle.again(self.context.clone());
            self.pods.insert(uid, worker);
        }
    }

    fn compare(&mut self, held: BTreeMap<String, Held>) {
        for (uid, (handle, _)) in &self.pods {
            if held.get(uid).map(|now| &now.fingerprint)
                != self.held.get(uid).map(|before| &before.fingerprint)
            {
                handle.wake();
            }
        }
        for (uid, orphan) in held.iter().filter(|_| self.complete) {
            // What a worker has just removed may still be in this look: then the next worker finds nothing.
            if !self.pods.contains_key(uid) && !self.gone.contains(uid) {
                tracing::info!(
                    pod = orphan.name,
                    uid,
                    "taking down a pod that is not assigned"
                );
                let (handle, task) = worker::spawn_orphan(self.context.clone(), uid, orphan);
                handle.removed();
                self.pods.insert(uid.clone(), (handle, task));
            }
        }
        self.held = held;
    }

    fn report(&mut self) {
        const MOVES: &str = "no holder of this lock can panic: it only moves values";
        let health = self.health.lock().expect(MOVES).clone();
        let mut held = self.status.lock().expect(MOVES);
        let status = self
            .machine
            .status(&self.data_dir, &health, self.context.now(), &held);
        let stale = self
            .status_sent
            .is_none_or(|sent| sent.elapsed() >= NODE_STATUS_REPEAT);
        if stale || without_heartbeat(&held) != without_heartbeat(&status) {
            self.context
                .outbox
                .node_status(status.to_string().into_bytes());
            self.status_sent = Some(Instant::now());
        }
        *held = status;
    }

    /// Stops all pods without a word about them, each within `grace`. Gives the workers to wait for.
    pub async fn halt(&mut self, grace: Duration) -> Pods {
        self.complete = true;
        // Pods that the runtime still has from former runs go too.
        match self.context.runtime.list().await {
            Ok(held) => self.compare(held),
            Err(error) => tracing::warn!(%error, "cannot see what runs"),
        }
        let pods = std::mem::take(&mut self.pods);
        for (handle, _) in pods.values() {
            handle.halt(grace.as_secs().min(u64::from(u32::MAX)) as u32);
        }
        pods
    }
}

//! The agent's main loop: commands from the session to the pods' workers, and the rounds: what the runtime shows, the node's status, log
//! sizes. It waits for no container: whatever takes long is a worker's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Pods;
use crate::containerd::Containerd;
use crate::images::Importer;
use crate::logs;
use crate::node::{Health, Machine, without_heartbeat};
use crate::objects;
use crate::plan::State;
use crate::pod::Pod;
use crate::proto;
use crate::runtime::Held;
use crate::session::Command;
use crate::streams::Streams;
use crate::worker::{self, NodeContext};

/// How often the runtime is looked at for what changed by itself.
const RELIST_INTERVAL: Duration = Duration::from_secs(1);
const NODE_STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// An unchanged node status is repeated this often (the kubelet's nodeStatusReportFrequency).
const NODE_STATUS_REPEAT: Duration = Duration::from_secs(300);
const ROTATE_INTERVAL: Duration = Duration::from_secs(10);
const IMPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Imports archives as they appear.
pub(super) async fn import_forever(mut importer: Importer) {
    loop {
        sleep(IMPORT_INTERVAL).await;
        importer.scan().await;
    }
}

pub(super) struct NodeLoop {
    context: Arc<NodeContext>,
    machine: Machine,
    data_dir: PathBuf,
    containerd: Arc<Containerd>,
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

impl NodeLoop {
    pub fn new(
        context: Arc<NodeContext>,
        machine: Machine,
        data_dir: PathBuf,
        containerd: Arc<Containerd>,
        health: Arc<Mutex<Health>>,
        status: Arc<Mutex<Value>>,
        streams: mpsc::Sender<proto::StreamData>,
    ) -> Self {
        let streams = Streams::new(context.clone(), streams);
        NodeLoop {
            context,
            machine,
            data_dir,
            containerd,
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
    pub async fn run(&mut self, mut commands: mpsc::Receiver<Command>) {
        let every = |period: Duration| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut relist, mut report, mut rotate) =
            (every(RELIST_INTERVAL), every(NODE_STATUS_INTERVAL), every(ROTATE_INTERVAL));
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                _ = relist.tick() => self.relist().await,
                _ = report.tick() => self.report(),
                _ = rotate.tick() => self.rotate_logs().await,
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
                self.context.objects.set(key.clone(), object.as_ref());
                for (handle, _) in self.pods.values() {
                    if objects::references(&handle.pod()).contains(&key) {
                        handle.refresh();
                    }
                }
            }
            Command::Complete { uids } => {
                self.context.outbox.keep_only(&uids);
                self.gone.retain(|uid| uids.contains(uid));
                let unnamed: Vec<String> = self.pods.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
                unnamed.iter().for_each(|uid| self.remove(uid));
                self.complete = true;
                self.drop_objects();
            }
            Command::Stream(command) => self.streams.obey(command),
            Command::StatusRejected { uid, reason } => tracing::warn!(uid, reason, "a status was refused"),
        }
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
        self.drop_objects();
    }

    /// Forgets the objects that no pod refers to any more.
    fn drop_objects(&mut self) {
        if !self.complete {
            return;
        }
        let wanted: BTreeSet<_> =
            self.pods.values().flat_map(|(handle, _)| objects::references(&handle.pod())).collect();
        self.context.objects.retain(|key| wanted.contains(key));
    }

    /// Wakes the workers whose pods look different, and takes down what nobody assigned.
    async fn relist(&mut self) {
        let health = self.listed().await;
        let changed = {
            let mut held = self.health.lock().expect("no holder of this lock can panic: it only moves values");
            let changed = held.is_ok() != health.is_ok();
            *held = health;
            changed
        };
        if changed {
            self.report();
        }
        let finished: Vec<String> =
            self.pods.iter().filter(|(_, (_, task))| task.is_finished()).map(|(uid, _)| uid.clone()).collect();
        for uid in finished {
            if let Some((handle, _)) = self.pods.remove(&uid)
                && handle.pod().is_deleted()
            {
                self.gone.insert(uid);
            }
        }
    }

    async fn listed(&mut self) -> Health {
        self.containerd.ensure_running().await.map_err(|error| error.to_string())?;
        let held = self.context.runtime.list().await.map_err(|error| error.to_string())?;
        for (uid, (handle, _)) in &self.pods {
            if held.get(uid).map(|now| &now.fingerprint) != self.held.get(uid).map(|before| &before.fingerprint) {
                handle.wake();
            }
        }
        if self.complete {
            for (uid, orphan) in &held {
                if self.pods.contains_key(uid) {
                    continue;
                }
                tracing::info!(pod = orphan.name, uid, "taking down a pod that is not assigned");
                let (handle, task) = worker::spawn_orphan(self.context.clone(), uid, orphan);
                handle.removed();
                self.pods.insert(uid.clone(), (handle, task));
            }
        }
        self.held = held;
        Ok(())
    }

    fn report(&mut self) {
        const MOVES: &str = "no holder of this lock can panic: it only moves values";
        let health = self.health.lock().expect(MOVES).clone();
        let mut held = self.status.lock().expect(MOVES);
        let status = self.machine.status(&self.data_dir, &health, self.context.now(), &held);
        let stale = self.status_sent.is_none_or(|sent| sent.elapsed() >= NODE_STATUS_REPEAT);
        if stale || without_heartbeat(&held) != without_heartbeat(&status) {
            self.context.outbox.node_status(status.to_string().into_bytes());
            self.status_sent = Some(Instant::now());
        }
        *held = status;
    }

    async fn rotate_logs(&self) {
        let views: Vec<_> = {
            let views = self.context.views.lock().expect("no holder of this lock can panic: it only moves values");
            views.values().cloned().collect()
        };
        for view in views {
            let meta = &view.pod.metadata;
            let dir = logs::pod_dir(&self.context.logs_dir, &meta.namespace, &meta.name, &meta.uid);
            for container in view.observed.containers.iter().filter(|one| one.state == State::Running) {
                let file = logs::file(&dir, &container.name, container.attempt);
                match logs::rotate::rotate(&file, self.context.now(), logs::rotate::MAX_FILE_BYTES) {
                    Ok(false) => {}
                    Ok(true) => {
                        if let Err(error) = self.context.runtime.reopen_log(&container.id).await {
                            tracing::warn!(pod = view.pod.path(), %error, "a log was not reopened");
                        }
                    }
                    Err(error) => tracing::warn!(file = %file.display(), %error, "a log was not rotated"),
                }
            }
        }
    }

    /// Stops all pods without a word about them, each within `grace`. Gives the workers to wait for.
    pub async fn halt(&mut self, grace: Duration) -> Pods {
        self.complete = true;
        // Pods that the runtime still has from former runs go too.
        if let Err(error) = self.listed().await {
            tracing::warn!(error, "cannot see what runs");
        }
        let pods = std::mem::take(&mut self.pods);
        for (handle, _) in pods.values() {
            handle.halt(grace.as_secs().min(u64::from(u32::MAX)) as u32);
        }
        pods
    }
}

//! The shell around the planner for one pod: observe ▸ plan ▸ report ▸ act, again and again until nothing of the pod is left. One task a pod,
//! so that its actions never overlap; a deletion interrupts what may take long (a pull, a hook, a grace period).
//!
//! It decides nothing that `plan` could decide, and keeps nothing that the runtime could tell it after a restart.

mod act;
mod events;
mod handle;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::env::Downward;
use crate::images::Importer;
use crate::objects::Objects;
use crate::outbox::Outbox;
use crate::plan::{self, Fate, Input, Memory, Observed, State};
use crate::pod::Pod;
use crate::probes::{self, Finding};
use crate::runtime::ContainerRuntime;
use crate::runtime::configs::NodeFacts;
use crate::volumes::{self, PodDirs};
use crate::{Timestamp, WallClock, logs, proto, status};
use handle::Desired;
pub use handle::Handle;

/// The wait after the runtime has failed to answer.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);
/// What all workers of a node share.
pub struct NodeContext {
    pub runtime: Arc<dyn ContainerRuntime>,
    /// Where images come from without a registry.
    pub archives: tokio::sync::Mutex<Importer>,
    pub outbox: Outbox,
    pub objects: Objects,
    pub facts: NodeFacts,
    pub host_ip: String,
    pub allocatable_cpu_milli: i64,
    pub allocatable_memory: i64,
    pub pods_dir: PathBuf,
    pub logs_dir: PathBuf,
    pub wall_clock: WallClock,
    /// What log readers ask: by pod uid.
    pub views: Mutex<BTreeMap<String, Arc<View>>>,
}

impl NodeContext {
    pub fn now(&self) -> Timestamp {
        (self.wall_clock)()
    }
}

/// A pod as it was last observed.
pub struct View {
    pub pod: Arc<Pod>,
    pub observed: Observed,
    pub status: Value,
}

/// Starts a pod's worker. The task ends when nothing of the pod is left.
pub fn spawn(
    context: Arc<NodeContext>,
    pod: Pod,
    revision: u64,
) -> (Handle, tokio::task::JoinHandle<()>) {
    let pod = Arc::new(pod);
    let handle = Handle::new(pod.clone(), revision);
    let (findings, found) = mpsc::channel(probes::VERDICT_QUEUE);
    let uid = pod.metadata.uid.clone();
    let now = context.now();
    let started = pod.status["startTime"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or(now);
    let ended = matches!(pod.status["phase"].as_str(), Some("Succeeded" | "Failed"));
    let worker = Worker {
        dirs: PodDirs::new(&context.pods_dir, &uid),
        memory: Memory {
            start_time: started,
            ended,
            ..Memory::default()
        },
        reported: pod.status.clone(),
        sent: None,
        desired: handle.lock().clone(),
        handle: handle.clone(),
        observed: Observed::default(),
        fate: Fate::Run,
        probers: BTreeMap::new(),
        findings,
        found,
        context,
    };
    let task = tokio::spawn(worker.run());
    (handle, task)
}

/// Starts a worker for a pod that only the runtime knows, to take it down.
pub fn spawn_orphan(
    context: Arc<NodeContext>,
    uid: &str,
    held: &crate::runtime::Held,
) -> (Handle, tokio::task::JoinHandle<()>) {
    spawn(context, act::orphan(uid, held), 0)
}

struct Worker {
    context: Arc<NodeContext>,
    handle: Handle,
    desired: Desired,
    dirs: PodDirs,
    fate: Fate,
    observed: Observed,
    memory: Memory,
    /// The status as last computed, or the object's own.
    reported: Value,
    /// The status as last handed on. Two that differ in the order of fields alone are one.
    sent: Option<(Value, Vec<u8>)>,
    /// By container id.
    probers: BTreeMap<String, AbortHandle>,
    findings: mpsc::Sender<Finding>,
    found: mpsc::Receiver<Finding>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.probers.values().for_each(AbortHandle::abort);
    }
}

impl Worker {
    async fn run(mut self) {
        loop {
            self.take_desired();
            if let Err(error) = self.observe().await {
                tracing::debug!(pod = self.desired.pod.path(), %error, "cannot observe");
                sleep(RUNTIME_RETRY).await;
                continue;
            }
            self.watch_probes();
            let now = self.context.now();
            self.memory.deadline_exceeded |= self.deadline_passed(now);
            let mut plan = plan::plan(&self.input(now));
            if plan.ended && !self.memory.ended {
                self.memory.ended = true;
                plan = plan::plan(&self.input(now));
            }
            self.report(now);
            if plan.actions.is_empty() {
                self.wait(plan.look_again, now).await;
                continue;
            }
            match self.act(plan.actions).await {
                act::Done::All | act::Done::Told => {}
                act::Done::Failed => self.wait_a_moment().await,
                act::Done::Gone => break,
            }
        }
        let uid = &self.desired.pod.metadata.uid;
        self.context
            .views
            .lock()
            .expect("no holder of this lock can panic: it only moves values")
            .remove(uid);
    }

    fn input(&self, now: Timestamp) -> Input<'_> {
        Input {
            pod: &self.desired.pod,
            fate: self.fate,
            observed: &self.observed,
            memory: &self.memory,
            now,
        }
    }

    fn downward<'a>(&'a self, ips: &'a [String]) -> Downward<'a> {
        Downward {
            pod: &self.desired.pod,
            pod_ips: ips,
            host_ip: &self.context.host_ip,
            allocatable_cpu_milli: self.context.allocatable_cpu_milli,
            allocatable_memory: self.context.allocatable_memory,
        }
    }

    /// Takes over what is wanted now.
    fn take_desired(&mut self) {
        let refresh = {
            let mut held = self.handle.lock();
            let refresh = std::mem::take(&mut held.refresh);
            self.desired = held.clone();
            refresh
        };
        let now = self.context.now();
        let stop = match self.desired.removed {
            Some(grace_s) => Some(grace_s),
            None => self
                .desired
                .pod
                .is_deleted()
                .then(|| self.desired.pod.grace_s()),
        };
        match (stop, &mut self.fate) {
            (None, _) => {}
            (Some(grace_s), Fate::Run) => {
                self.fate = Fate::Stop {
                    since: now,
                    grace_s,
                }
            }
            // A grace period is only shortened, never begun again.
            (Some(grace_s), Fate::Stop { grace_s: held, .. }) => *held = grace_s.min(*held),
        }
        if refresh {
            // What was missing may have come: try again now. The problem stays until it is known to be solved, for it is in the status.
            let problems = self.memory.problems.values_mut();
            let missing = problems.filter(|problem| problem.reason == "CreateContainerConfigError");
            for problem in missing.chain(&mut self.memory.pod_problem) {
                problem.retry_at = now;
            }
            if self.memory.volumes_ready {
                self.refresh_volumes();
            }
        }
    }

    fn refresh_volumes(&mut self) {
        let ips = self.ips();
        if let Err(error) =
            volumes::prepare(&self.dirs, &self.context.objects, &self.downward(&ips))
        {
            // The files stay as they were: what is gone from the API goes from no running pod.
            tracing::debug!(pod = self.desired.pod.path(), %error, "volumes not brought up to date");
        }
    }

    fn ips(&self) -> Vec<String> {
        match self
            .observed
            .sandboxes
            .iter()
            .filter(|sandbox| sandbox.ready)
            .max_by_key(|sandbox| sandbox.attempt)
        {
            Some(_) if self.desired.pod.spec.host_network => vec![self.context.host_ip.clone()],
            Some(sandbox) => sandbox.ips.clone(),
            None => Vec::new(),
        }
    }

    async fn observe(&mut self) -> Result<(), crate::runtime::RuntimeError> {
        let mut observed = self
            .context
            .runtime
            .observe(&self.desired.pod.metadata.uid)
            .await?;
        for container in observed
            .containers
            .iter_mut()
            .filter(|container| container.state == State::Exited)
        {
            let Some(spec) = self.desired.pod.container(&container.name) else {
                continue;
            };
            let file = self.dirs.termination(&container.name, container.attempt);
            let said = std::fs::read(&file).unwrap_or_default();
            if !said.is_empty() {
                const MOST: usize = 4096;
                container.message =
                    String::from_utf8_lossy(&said[..said.len().min(MOST)]).into_owned();
            } else if spec.termination_message_policy == "FallbackToLogsOnError"
                && container.exit_code != 0
            {
                let meta = &self.desired.pod.metadata;
                let dir = logs::pod_dir(
                    &self.context.logs_dir,
                    &meta.namespace,
                    &meta.name,
                    &meta.uid,
                );
                container.message =
                    logs::tail(&logs::file(&dir, &container.name, container.attempt)).await;
            }
        }
        self.observed = observed;
        // What is kept of containers that are gone is of no more use.
        let lives = |id: &String| {
            self.observed
                .containers
                .iter()
                .any(|container| container.id == *id)
        };
        self.memory.verdicts.retain(|id, _| lives(id));
        self.memory.hooked.retain(|id| lives(id));
        Ok(())
    }

    /// A probing task for each running container that has probes, none for others.
    fn watch_probes(&mut self) {
        let running: Vec<_> = self
            .observed
            .containers
            .iter()
            .filter(|container| container.state == State::Running)
            .collect();
        self.probers.retain(|id, task| {
            let lives =
                running.iter().any(|container| container.id == *id) && self.fate == Fate::Run;
            if !lives {
                task.abort();
            }
            lives
        });
        if self.fate != Fate::Run {
            return;
        }
        let ip = self.ips().first().cloned().unwrap_or_default();
        for container in running {
            let Some(spec) = self.desired.pod.container(&container.name) else {
                continue;
            };
            if self.probers.contains_key(&container.id) || !probes::has_any(spec) {
                continue;
            }
            let (was_started, was_ready) = reported_of(&self.reported, &container.id);
            let verdict = probes::initial(spec, was_started, was_ready);
            self.memory.verdicts.insert(container.id.clone(), verdict);
            let target = probes::Target {
                container_id: container.id.clone(),
                spec: spec.clone(),
                ip: ip.clone(),
                runtime: self.context.runtime.clone(),
            };
            let age = container
                .started_at
                .map(|at| self.context.now() - at)
                .and_then(|age| age.to_std().ok());
            let task = probes::run(
                target,
                verdict,
                age.unwrap_or_default(),
                self.findings.clone(),
            );
            self.probers
                .insert(container.id.clone(), tokio::spawn(task).abort_handle());
        }
    }

    fn learn(&mut self, finding: Finding) {
        if let Some(complaint) = finding.complaint {
            let name = self
                .observed
                .containers
                .iter()
                .find(|container| container.id == finding.container_id);
            let name = name
                .map(|container| container.name.clone())
                .unwrap_or_default();
            self.event("Warning", "Unhealthy", complaint, &name);
        }
        if let Some(held) = self.memory.verdicts.get_mut(&finding.container_id) {
            *held = finding.verdict;
        }
    }

    fn deadline_passed(&self, now: Timestamp) -> bool {
        let limit = self.desired.pod.spec.active_deadline_seconds;
        limit.is_some_and(|limit| now >= self.memory.start_time + chrono::TimeDelta::seconds(limit))
            && !self.memory.ended
    }

    /// Computes the status and hands it on if it differs.
    fn report(&mut self, now: Timestamp) {
        let stands = self.last_word_stands();
        if !stands {
            let mut status =
                status::pod_status(&self.input(now), &self.context.host_ip, &self.reported);
            if status["podIP"].is_null() && !self.reported["podIP"].is_null() && self.memory.ended {
                // A pod that has ended keeps the address that it had.
                status["podIP"] = self.reported["podIP"].clone();
                status["podIPs"] = self.reported["podIPs"].clone();
            }
            let before = std::mem::replace(&mut self.reported, status);
            self.tell_back_offs(&before);
        }
        let view = View {
            pod: self.desired.pod.clone(),
            observed: self.observed.clone(),
            status: self.reported.clone(),
        };
        let meta = &self.desired.pod.metadata;
        self.context
            .views
            .lock()
            .expect("no holder of this lock can panic: it only moves values")
            .insert(meta.uid.clone(), Arc::new(view));
        if self.desired.silent || self.desired.removed.is_some() || stands {
            return;
        }
        let bytes = match &self.sent {
            Some((value, bytes)) if *value == self.reported => bytes.clone(),
            _ => self.reported.to_string().into_bytes(),
        };
        self.sent = Some((self.reported.clone(), bytes.clone()));
        self.context.outbox.pod_status(proto::PodStatus {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            status: bytes,
            base_revision: self.desired.revision,
        });
    }

    /// The containers of a pod that is deleted, or has ended, were removed: the last status, with how they ended, stands.
    fn last_word_stands(&self) -> bool {
        let ended = matches!(
            self.reported["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
        (self.fate != Fate::Run || ended) && self.observed.containers.is_empty()
    }

    async fn wait(&mut self, until: Option<Timestamp>, now: Timestamp) {
        // A problem's reason changes two seconds after it.
        let restless = !self.memory.problems.is_empty();
        let until =
            until.map(|at| (at - now).to_std().unwrap_or_default() + Duration::from_millis(1));
        let until = if restless {
            Some(
                until
                    .unwrap_or(Duration::from_secs(2))
                    .min(Duration::from_secs(2)),
            )
        } else {
            until
        };
        tokio::select! {
            () = self.handle.notify.notified() => {}
            Some(finding) = self.found.recv() => self.learn(finding),
            () = sleep(until.unwrap_or_default()), if until.is_some() => {}
        }
    }

    async fn wait_a_moment(&mut self) {
        tokio::select! {
            () = self.handle.notify.notified() => {}
            () = sleep(RUNTIME_RETRY) => {}
        }
    }

    /// Carries the actions out, one after another, while listening.
    async fn act(&mut self, actions: Vec<plan::Action>) -> act::Done {
        let interrupt = CancellationToken::new();
        let mut act = Box::pin(
            act::Act {
                context: self.context.clone(),
                pod: self.desired.pod.clone(),
                dirs: self.dirs.clone(),
                ips: self.ips(),
                memory: self.memory.clone(),
                interrupt: interrupt.clone(),
                silent: self.desired.silent,
            }
            .run(actions),
        );
        let fate = self.fate;
        let mut heard = Vec::new();
        let (done, memory) = loop {
            tokio::select! {
                outcome = &mut act => break outcome,
                () = self.handle.notify.notified() => {
                    if self.cuts_short(fate) {
                        interrupt.cancel();
                    }
                }
                Some(finding) = self.found.recv() => heard.push(finding),
            }
        };
        drop(act);
        self.memory = memory;
        heard.into_iter().for_each(|finding| self.learn(finding));
        if matches!(done, act::Done::Gone) {
            self.say_gone();
        }
        done
    }

    /// Whether what is wanted by now leaves no time for what is being done.
    fn cuts_short(&self, fate: Fate) -> bool {
        let desired = self.handle.lock();
        let grace = desired
            .removed
            .or(desired.pod.is_deleted().then(|| desired.pod.grace_s()));
        match (fate, grace) {
            (_, None) => false,
            (Fate::Run, Some(_)) => true,
            (Fate::Stop { grace_s, .. }, Some(now)) => now < grace_s,
        }
    }

    fn say_gone(&self) {
        if self.desired.silent || self.handle.lock().removed.is_some() {
            return;
        }
        let meta = &self.desired.pod.metadata;
        self.context.outbox.pod_gone(proto::PodGone {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            status: self.reported.to_string().into_bytes(),
        });
    }
}

/// Whether a status told this container to be started, and ready.
fn reported_of(status: &Value, container_id: &str) -> (bool, bool) {
    let id = format!("containerd://{container_id}");
    let mut told = ["containerStatuses", "initContainerStatuses"]
        .into_iter()
        .flat_map(|list| status[list].as_array().into_iter().flatten())
        .filter(|one| one["containerID"] == id.as_str());
    told.next().map_or((false, false), |one| {
        (one["started"] == true, one["ready"] == true)
    })
}

#[cfg(test)]
#[path = "worker/tests.rs"]
mod tests;

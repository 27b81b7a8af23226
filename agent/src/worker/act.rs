//! Carries out a pod's actions. Each failure becomes a `Problem` in the memory, with a back-off, for the next plan and the status to see.

mod start;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::NodeContext;
use crate::env::Downward;
use crate::logs;
use crate::plan::{Action, BACKOFF_FIRST_S, BACKOFF_LONGEST_S, Memory, Problem, Stop};
use crate::pod::{self, Pod};
use crate::probes;
use crate::runtime::configs;
use crate::runtime::{Held, RuntimeError};
use crate::volumes::{self, PodDirs};

/// A container that was told to stop gets at least this after its hook (Kubernetes: two seconds).
const LEAST_GRACE_S: u32 = 2;

/// How an action, or a list of them, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    All,
    /// One failed, and the memory holds why and until when; only in `one`.
    Told,
    /// One failed and the rest was left: to be tried again in a moment.
    Failed,
    /// Nothing of the pod is left.
    Gone,
}

/// Everything that carrying out needs; it changes only the memory, which it gives back.
pub(super) struct Act {
    pub context: Arc<NodeContext>,
    pub pod: Arc<Pod>,
    pub dirs: PodDirs,
    pub ips: Vec<String>,
    pub memory: Memory,
    pub interrupt: CancellationToken,
    /// The node stops: no events.
    pub silent: bool,
}

impl Act {
    pub async fn run(mut self, actions: Vec<Action>) -> (Done, Memory) {
        for action in actions {
            if self.interrupt.is_cancelled() {
                break;
            }
            match self.one(action).await {
                Done::All => {}
                // Without volumes or a sandbox nothing else can be; a container that can't be started keeps no other from starting.
                Done::Told if self.memory.pod_problem.is_some() => break,
                Done::Told => {}
                ended @ (Done::Failed | Done::Gone) => return (ended, self.memory),
            }
        }
        (Done::All, self.memory)
    }

    async fn one(&mut self, action: Action) -> Done {
        let runtime = self.context.runtime.clone();
        let outcome = match action {
            Action::PrepareVolumes => return self.prepare_volumes().await,
            Action::RunSandbox { attempt } => return self.run_sandbox(attempt).await,
            Action::StartContainer {
                name,
                sandbox_id,
                attempt,
                backoff_s,
            } => {
                return self
                    .start_container(&name, &sandbox_id, attempt, backoff_s)
                    .await;
            }
            Action::StopContainers(stops) => return self.stop_all(stops).await,
            Action::RemoveContainer { id } => runtime.remove_container(&id).await,
            Action::StopSandbox { id } => runtime.stop_sandbox(&id).await,
            Action::RemoveSandbox { id } => runtime.remove_sandbox(&id).await,
            Action::CleanUp => return self.clean_up().await,
            Action::Gone => return Done::Gone,
        };
        match outcome {
            Ok(()) => Done::All,
            Err(error) => {
                tracing::warn!(pod = self.pod.path(), %error, "an action failed");
                Done::Failed
            }
        }
    }

    async fn prepare_volumes(&mut self) -> Done {
        let (context, pod, dirs, ips) = (
            self.context.clone(),
            self.pod.clone(),
            self.dirs.clone(),
            self.ips.clone(),
        );
        let made = tokio::task::spawn_blocking(move || {
            let downward = Downward {
                pod: &pod,
                pod_ips: &ips,
                host_ip: &context.host_ip,
                allocatable_cpu_milli: context.allocatable_cpu_milli,
                allocatable_memory: context.allocatable_memory,
            };
            volumes::prepare(&dirs, &context.objects, &downward)?;
            // The sandbox of an adopted pod has its address already.
            if ips.is_empty() {
                Ok(())
            } else {
                volumes::write_etc_hosts(&dirs, &pod, &ips)
            }
        })
        .await;
        let failed = match made {
            Ok(Ok(())) => {
                self.memory.volumes_ready = true;
                self.memory.pod_problem = None;
                return Done::All;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        let waits_for_server = failed.ends_with("has not arrived yet");
        if !waits_for_server {
            self.event(
                "Warning",
                "FailedMount",
                format!("MountVolume.SetUp failed: {failed}"),
                "",
            );
        }
        let problem = self.problem(
            self.memory.pod_problem.as_ref(),
            "ContainerCreating",
            "ContainerCreating",
            failed,
        );
        self.memory.pod_problem = Some(problem);
        Done::Told
    }

    async fn run_sandbox(&mut self, attempt: u32) -> Done {
        let config = self.sandbox_config(attempt);
        let log_directory = config.log_directory.clone();
        if let Err(error) = std::fs::create_dir_all(&log_directory) {
            tracing::warn!(log_directory, %error, "no directory for logs");
        }
        let outcome = match self.context.runtime.run_sandbox(config).await {
            Ok(_) => self.after_sandbox().await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {
                self.memory.pod_problem = None;
                Done::All
            }
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                self.event("Warning", "FailedCreatePodSandBox", message.clone(), "");
                let problem = self.problem(
                    self.memory.pod_problem.as_ref(),
                    "ContainerCreating",
                    "ContainerCreating",
                    message,
                );
                self.memory.pod_problem = Some(problem);
                Done::Told
            }
        }
    }

    /// The pod has an address now: its names go into its /etc/hosts.
    async fn after_sandbox(&mut self) -> Result<(), RuntimeError> {
        let observed = self.context.runtime.observe(&self.pod.metadata.uid).await?;
        let newest = observed
            .sandboxes
            .into_iter()
            .max_by_key(|sandbox| sandbox.attempt);
        self.ips = match newest {
            Some(_) if self.pod.spec.host_network => vec![self.context.host_ip.clone()],
            Some(sandbox) => sandbox.ips,
            None => Vec::new(),
        };
        volumes::write_etc_hosts(&self.dirs, &self.pod, &self.ips)
            .map_err(|error| RuntimeError::Failed(error.to_string()))
    }

    fn sandbox_config(&self, attempt: u32) -> k8s_cri::v1::PodSandboxConfig {
        configs::sandbox(
            &self.pod,
            attempt,
            &self.log_dir().to_string_lossy(),
            &self.context.facts,
        )
    }

    fn log_dir(&self) -> std::path::PathBuf {
        let meta = &self.pod.metadata;
        logs::pod_dir(
            &self.context.logs_dir,
            &meta.namespace,
            &meta.name,
            &meta.uid,
        )
    }

    /// All at once: hook, then signal, within one grace.
    async fn stop_all(&mut self, stops: Vec<Stop>) -> Done {
        let outcomes = join_all(stops.iter().map(|stop| self.stop(stop))).await;
        let mut done = Done::All;
        for (stop, outcome) in stops.into_iter().zip(outcomes) {
            if stop.hook {
                self.memory.hooked.insert(stop.id.clone());
            }
            if let Err(error) = outcome {
                tracing::warn!(pod = self.pod.path(), container = stop.name, %error, "cannot stop");
                done = Done::Failed;
            }
        }
        done
    }

    async fn stop(&self, stop: &Stop) -> Result<(), RuntimeError> {
        self.event("Normal", "Killing", stop.why.clone(), &stop.name);
        let begin = Instant::now();
        let spec = self.pod.container(&stop.name);
        if let Some((spec, hook)) = spec
            .filter(|_| stop.hook)
            .and_then(|spec| Some((spec, spec.lifecycle.pre_stop.as_ref()?)))
        {
            let target = self.target(&stop.id, spec);
            let patience = Duration::from_secs(u64::from(stop.grace_s));
            let answer = tokio::select! {
                answer = probes::run_hook(&target, hook, patience) => Some(answer),
                () = self.interrupt.cancelled() => None,
            };
            if let Some(answer) = answer.filter(|answer| !answer.ok) {
                self.event(
                    "Warning",
                    "FailedPreStopHook",
                    format!("PreStopHook failed: {}", answer.message),
                    &stop.name,
                );
            }
        }
        let spent = begin.elapsed().as_secs() as u32;
        let grace = if stop.grace_s == 0 {
            0
        } else {
            stop.grace_s
                .saturating_sub(spent)
                .max(LEAST_GRACE_S.min(stop.grace_s))
        };
        tokio::select! {
            outcome = self.context.runtime.stop_container(&stop.id, grace) => outcome,
            // A shorter grace is wanted by now: the next plan says which.
            () = self.interrupt.cancelled() => Ok(()),
        }
    }

    fn target(&self, container_id: &str, spec: &pod::Container) -> probes::Target {
        probes::Target {
            container_id: container_id.to_owned(),
            spec: spec.clone(),
            ip: self.ips.first().cloned().unwrap_or_default(),
            runtime: self.context.runtime.clone(),
        }
    }

    async fn clean_up(&mut self) -> Done {
        let (dirs, logs) = (self.dirs.clone(), self.log_dir());
        let cleaned = tokio::task::spawn_blocking(move || {
            volumes::clean_up(&dirs)?;
            remove_logs(&logs);
            Ok::<_, volumes::VolumeError>(())
        })
        .await;
        match cleaned {
            Ok(Ok(())) => Done::All,
            Ok(Err(error)) => {
                tracing::warn!(pod = self.pod.path(), %error, "cannot clean up");
                Done::Failed
            }
            Err(_) => Done::Failed,
        }
    }

    fn event(&self, kind: &str, reason: &str, message: impl Into<String>, container: &str) {
        if self.silent {
            return;
        }
        self.context
            .event(&self.pod, kind, reason, message, container);
    }

    /// The problem after `before`, with twice its back-off.
    fn problem(
        &self,
        before: Option<&Problem>,
        reason: &'static str,
        reason_later: &'static str,
        message: String,
    ) -> Problem {
        let now = self.context.now();
        // What the server will send in a moment is not to be waited for long.
        let soon = message.ends_with("has not arrived yet")
            || reason == "CreateContainerConfigError"
            || reason == "ContainerCreating";
        let first = if soon { 1 } else { BACKOFF_FIRST_S };
        let backoff_s = before.map_or(first, |before| {
            (before.backoff_s * 2).clamp(first, BACKOFF_LONGEST_S)
        });
        let backoff_s = if soon { backoff_s.min(10) } else { backoff_s };
        Problem {
            reason,
            reason_later,
            message,
            since: now,
            retry_at: now + TimeDelta::seconds(i64::from(backoff_s)),
            backoff_s,
        }
    }
}

fn remove_logs(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "logs are left");
    }
}

/// A pod that only the runtime knows: just enough of it to be taken down.
pub fn orphan(uid: &str, held: &Held) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.uid = uid.to_owned();
    pod.metadata.namespace = held.namespace.clone();
    pod.metadata.name = held.name.clone();
    pod
}

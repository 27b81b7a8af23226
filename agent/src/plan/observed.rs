//! What a container runtime shows of one pod, and what the agent's process remembers about it: the planner's input, plain data.
//!
//! All that must survive a restart of the agent is in the runtime (labels and annotations); `Memory` holds only what may be found out again.

use std::collections::{BTreeMap, BTreeSet};

use crate::Timestamp;

/// One pod's sandboxes and containers, in any order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    /// Addresses by CNI, none on the host's network.
    pub ips: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub sandbox_id: String,
    /// The restart count.
    pub attempt: u32,
    pub state: State,
    /// `spec_hash` of the spec that it was made from.
    pub spec_hash: String,
    /// Seconds that have to pass after its end before the next attempt.
    pub backoff_s: u32,
    pub image: String,
    pub image_id: String,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Made and not started: an agent that died in between leaves one.
    Created,
    Running,
    Exited,
    Unknown,
}

/// What probes have found of one running container. Filled in by `probes`, by container id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The startup probe has passed, or there is none.
    pub started: bool,
    /// The readiness probe passes, or there is none.
    pub ready: bool,
    /// The startup or liveness probe has failed for good: the container is to be killed.
    pub failed: Option<&'static str>,
}

/// Why something could not be done, and when it is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// As in a container status' `waiting.reason`.
    pub reason: &'static str,
    /// From two seconds after the failure on, when it is the back-off that is waited for.
    pub reason_later: &'static str,
    pub message: String,
    pub since: Timestamp,
    pub retry_at: Timestamp,
    pub backoff_s: u32,
}

impl Problem {
    pub fn reason_at(&self, now: Timestamp) -> &'static str {
        if now - self.since >= chrono::TimeDelta::seconds(2) {
            self.reason_later
        } else {
            self.reason
        }
    }
}

/// What this process knows of a pod beyond what the runtime shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    pub start_time: Timestamp,
    pub volumes_ready: bool,
    /// The sandbox or the volumes could not be made.
    pub pod_problem: Option<Problem>,
    /// By container name: no image, a missing ConfigMap, a failed creation.
    pub problems: BTreeMap<String, Problem>,
    /// By container id.
    pub verdicts: BTreeMap<String, Verdict>,
    /// Containers whose preStop hook has run, by id.
    pub hooked: BTreeSet<String>,
    /// It has ended once, and never starts again.
    pub ended: bool,
    pub deadline_exceeded: bool,
}

/// What is to become of the pod.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    Run,
    /// Its object is being deleted, or is gone: stop it, and leave nothing.
    Stop {
        since: Timestamp,
        grace_s: u32,
    },
}

//! The planner: one pod's spec, what the runtime shows of it and what is remembered -> what to do next. Pure: no I/O, no clock; called again
//! after each action, each change and each event, and planning again on the same input plans the same.
//!
//! The order of a life: volumes ▸ sandbox ▸ init containers one after another (sidecars stay) ▸ containers ▸ restarts with back-off ▸
//! ended or deleted: containers stop, then sidecars in reverse, then the sandbox; deleted: nothing is left, and that is reported.
//! Behaviour is the kubelet's (Pod lifecycle, KEP-753 for sidecars), unless a comment says otherwise.

pub mod observed;

use chrono::TimeDelta;
use sha2::{Digest, Sha256};

use crate::Timestamp;
use crate::pod::{self, Pod, RestartPolicy};
pub use observed::{Container, Fate, Memory, Observed, Problem, Sandbox, State, Verdict};

/// The wait before a container's second restart; doubles with each.
pub const BACKOFF_FIRST_S: u32 = 10;
pub const BACKOFF_LONGEST_S: u32 = 300;
/// A container that was made longer ago than this starts its back-off anew.
pub const BACKOFF_RESET_S: i64 = 600;
/// Ended containers of one name that are kept, the newest included: for `logs --previous` and `lastState`.
const KEEP_ENDED: usize = 2;

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    PrepareVolumes,
    RunSandbox {
        attempt: u32,
    },
    /// Image, creation, start and postStart of one attempt.
    StartContainer {
        name: String,
        sandbox_id: String,
        attempt: u32,
        backoff_s: u32,
    },
    /// All of them at once.
    StopContainers(Vec<Stop>),
    RemoveContainer {
        id: String,
    },
    StopSandbox {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    /// Volumes, mounts, logs.
    CleanUp,
    /// Nothing is left: say so.
    Gone,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Stop {
    pub id: String,
    pub name: String,
    pub grace_s: u32,
    /// Run preStop first, within the grace.
    pub hook: bool,
    /// For the event: why.
    pub why: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// When the plan changes by the passing of time alone.
    pub look_again: Option<Timestamp>,
    /// No container will ever run again: `Memory::ended` from now on.
    pub ended: bool,
}

/// Everything a plan is made from.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub pod: &'a Pod,
    pub fate: Fate,
    pub observed: &'a Observed,
    pub memory: &'a Memory,
    pub now: Timestamp,
}

pub fn plan(input: &Input<'_>) -> Plan {
    match input.fate {
        Fate::Stop { since, grace_s } => {
            let elapsed = (input.now - since)
                .num_seconds()
                .clamp(0, i64::from(u32::MAX)) as u32;
            input.tear_down(grace_s.saturating_sub(elapsed), true)
        }
        Fate::Run if input.memory.ended || input.memory.deadline_exceeded => {
            input.tear_down(input.pod.grace_s(), false)
        }
        Fate::Run => input.run(),
    }
}

/// What decides whether a running container still is what its spec asks for. Only the image of a pod's container may change.
pub fn spec_hash(container: &pod::Container) -> String {
    let digest = Sha256::digest(format!("{}\0{}", container.name, container.image));
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What comes next for a container, by what its newest attempt shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next<'a> {
    /// It runs, or is being made.
    Keep(&'a Container),
    Start {
        attempt: u32,
        backoff_s: u32,
    },
    /// It starts again, but not before.
    BackOff {
        until: Timestamp,
    },
    /// It has ended and stays so.
    Done {
        exit_code: i32,
    },
}

impl<'a> Input<'a> {
    /// The newest sandbox, if it is ready.
    pub fn current_sandbox(&self) -> Option<&'a Sandbox> {
        self.newest_sandbox().filter(|sandbox| sandbox.ready)
    }

    fn newest_sandbox(&self) -> Option<&'a Sandbox> {
        self.observed
            .sandboxes
            .iter()
            .max_by_key(|sandbox| sandbox.attempt)
    }

    /// A container's attempts, the newest first.
    pub fn attempts(&self, name: &str) -> Vec<&'a Container> {
        let mut all: Vec<_> = self
            .observed
            .containers
            .iter()
            .filter(|container| container.name == name)
            .collect();
        all.sort_by_key(|container| std::cmp::Reverse((container.attempt, container.created_at)));
        all
    }

    pub fn latest(&self, name: &str) -> Option<&'a Container> {
        self.attempts(name).first().copied()
    }

    pub fn policy_of(&self, container: &pod::Container, init: bool) -> RestartPolicy {
        match (init, container.restart_policy, self.pod.spec.restart_policy) {
            (_, Some(own), _) => own,
            // An init container that has failed is tried again unless the pod never restarts.
            (true, None, RestartPolicy::Always) => RestartPolicy::OnFailure,
            (_, None, policy) => policy,
        }
    }

    /// What comes next for an attempt, the restart policy being `policy`.
    pub fn next(&self, name: &str, policy: RestartPolicy) -> Next<'a> {
        let Some(latest) = self.latest(name) else {
            return Next::Start {
                attempt: 0,
                backoff_s: 0,
            };
        };
        if latest.state != State::Exited {
            return Next::Keep(latest);
        }
        let again = match policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => latest.exit_code != 0,
            RestartPolicy::Never => false,
        };
        if !again {
            return Next::Done {
                exit_code: latest.exit_code,
            };
        }
        let finished = latest.finished_at.unwrap_or(latest.created_at);
        let lived_long = self.now - latest.created_at > TimeDelta::seconds(BACKOFF_RESET_S);
        let until = finished + TimeDelta::seconds(i64::from(latest.backoff_s));
        if until > self.now && !lived_long {
            return Next::BackOff { until };
        }
        let backoff_s = if lived_long {
            BACKOFF_FIRST_S
        } else {
            (latest.backoff_s * 2).clamp(BACKOFF_FIRST_S, BACKOFF_LONGEST_S)
        };
        Next::Start {
            attempt: latest.attempt + 1,
            backoff_s,
        }
    }

    fn verdict(&self, id: &str) -> Option<&'a Verdict> {
        self.memory.verdicts.get(id)
    }

    /// Whether its startup probe, if it has one, has passed.
    pub fn is_started(&self, spec: &pod::Container, container: &Container) -> bool {
        container.state == State::Running
            && self
                .verdict(&container.id)
                .map_or(spec.startup_probe.is_none(), |verdict| verdict.started)
    }

    pub fn is_ready(&self, spec: &pod::Container, container: &Container) -> bool {
        self.is_started(spec, container)
            && self
                .verdict(&container.id)
                .map_or(spec.readiness_probe.is_none(), |verdict| verdict.ready)
    }

    /// An init container is through: ended well in this sandbox, or, a sidecar, started. All are once a main container was made here.
    pub fn init_is_through(&self, spec: &pod::Container) -> bool {
        let Some(sandbox) = self.current_sandbox() else {
            return false;
        };
        if self.mains_have_begun(sandbox) {
            return true;
        }
        match self.latest(&spec.name) {
            Some(latest) if latest.sandbox_id != sandbox.id => false,
            Some(latest) if spec.is_sidecar() => self.is_started(spec, latest),
            Some(latest) => latest.state == State::Exited && latest.exit_code == 0,
            None => false,
        }
    }

    fn mains_have_begun(&self, sandbox: &Sandbox) -> bool {
        self.observed.containers.iter().any(|container| {
            container.sandbox_id == sandbox.id
                && self
                    .pod
                    .spec
                    .containers
                    .iter()
                    .any(|spec| spec.name == container.name)
        })
    }

    fn run(&self) -> Plan {
        let mut plan = Plan::default();
        if let Some(limit) = self.pod.spec.active_deadline_seconds {
            plan.wait_until(self.memory.start_time + TimeDelta::seconds(limit));
        }
        let Some(sandbox) = self.current_sandbox() else {
            self.make_sandbox(&mut plan);
            return plan;
        };
        self.drop_the_old(sandbox, &mut plan);
        if !self.memory.volumes_ready {
            if self.wait_for(self.memory.pod_problem.as_ref(), &mut plan) {
                return plan;
            }
            plan.actions.push(Action::PrepareVolumes);
            return plan;
        }
        if !self.run_inits(sandbox, &mut plan) {
            return plan;
        }
        let mut all_done = true;
        for spec in &self.pod.spec.containers {
            let policy = self.policy_of(spec, false);
            all_done &= self.run_one(spec, policy, sandbox, &mut plan);
        }
        if all_done {
            plan.ended = true;
        }
        plan
    }

    /// No sandbox is ready: release what the last one held, then make the next.
    fn make_sandbox(&self, plan: &mut Plan) {
        // Everything has ended in a pod that does not restart: a new sandbox would have nothing to hold.
        let done = |spec: &pod::Container| {
            matches!(
                self.next(&spec.name, self.policy_of(spec, false)),
                Next::Done { .. }
            )
        };
        if self.pod.spec.containers.iter().all(done) {
            plan.ended = true;
            return;
        }
        let running = self.stops(|_| true, 0, "its sandbox is gone");
        if !running.is_empty() {
            plan.actions.push(Action::StopContainers(running));
            return;
        }
        if self.wait_for(self.memory.pod_problem.as_ref(), plan) {
            return;
        }
        if let Some(old) = self.newest_sandbox() {
            plan.actions
                .push(Action::StopSandbox { id: old.id.clone() });
        }
        if !self.memory.volumes_ready {
            plan.actions.push(Action::PrepareVolumes);
        }
        let attempt = self
            .newest_sandbox()
            .map_or(0, |sandbox| sandbox.attempt + 1);
        plan.actions.push(Action::RunSandbox { attempt });
    }

    /// What older sandboxes and attempts have left.
    fn drop_the_old(&self, sandbox: &Sandbox, plan: &mut Plan) {
        let stale = self.stops(
            |container| container.sandbox_id != sandbox.id,
            0,
            "its sandbox was replaced",
        );
        if !stale.is_empty() {
            plan.actions.push(Action::StopContainers(stale));
        }
        let mut dropped: Vec<&str> = Vec::new();
        for spec in self
            .pod
            .spec
            .init_containers
            .iter()
            .chain(&self.pod.spec.containers)
        {
            let attempts = self.attempts(&spec.name);
            for old in attempts
                .iter()
                .skip(KEEP_ENDED)
                .filter(|container| container.state == State::Exited)
            {
                plan.actions
                    .push(Action::RemoveContainer { id: old.id.clone() });
                dropped.push(&old.id);
            }
        }
        for old in self
            .observed
            .sandboxes
            .iter()
            .filter(|old| old.id != sandbox.id)
        {
            if old.ready {
                plan.actions
                    .push(Action::StopSandbox { id: old.id.clone() });
            }
            let in_use = |container: &Container| {
                container.sandbox_id == old.id && !dropped.contains(&container.id.as_str())
            };
            if !self.observed.containers.iter().any(in_use) {
                plan.actions
                    .push(Action::RemoveSandbox { id: old.id.clone() });
            }
        }
    }

    /// Whether the main containers may run.
    fn run_inits(&self, sandbox: &Sandbox, plan: &mut Plan) -> bool {
        let begun = self.mains_have_begun(sandbox);
        for spec in &self.pod.spec.init_containers {
            if spec.is_sidecar() {
                if self
                    .latest(&spec.name)
                    .is_some_and(|latest| latest.sandbox_id != sandbox.id)
                {
                    self.start(spec, self.after_other_sandbox(spec), sandbox, plan);
                } else {
                    self.run_one(spec, RestartPolicy::Always, sandbox, plan);
                }
                if !begun && !self.init_is_through(spec) {
                    return false;
                }
                continue;
            }
            if begun || self.init_is_through(spec) {
                continue;
            }
            let policy = self.policy_of(spec, true);
            match self.latest(&spec.name) {
                Some(latest) if latest.sandbox_id != sandbox.id => {
                    self.start(spec, self.after_other_sandbox(spec), sandbox, plan);
                }
                _ => {
                    // Ended, not well, and not to be tried again: the pod has failed.
                    plan.ended |= self.run_one(spec, policy, sandbox, plan);
                }
            }
            return false;
        }
        true
    }

    /// The next attempt of an init container whose last one ran in a sandbox that is gone.
    fn after_other_sandbox(&self, spec: &pod::Container) -> Next<'a> {
        let latest = self.latest(&spec.name);
        Next::Start {
            attempt: latest.map_or(0, |latest| latest.attempt + 1),
            backoff_s: latest.map_or(0, |latest| latest.backoff_s),
        }
    }

    /// Moves one container on. True: it has ended for good.
    fn run_one(
        &self,
        spec: &pod::Container,
        policy: RestartPolicy,
        sandbox: &Sandbox,
        plan: &mut Plan,
    ) -> bool {
        let next = self.next(&spec.name, policy);
        match next {
            Next::Keep(container) => self.keep(spec, container, plan),
            Next::Start { .. } => self.start(spec, next, sandbox, plan),
            Next::BackOff { until } => plan.wait_until(until),
            Next::Done { .. } => return true,
        }
        false
    }

    /// A container that is there and has not ended.
    fn keep(&self, spec: &pod::Container, container: &Container, plan: &mut Plan) {
        if container.state == State::Created {
            // No action is under way while a plan is made, so whoever was to start it has died.
            plan.actions.push(Action::RemoveContainer {
                id: container.id.clone(),
            });
            return;
        }
        let failed = self
            .verdict(&container.id)
            .and_then(|verdict| verdict.failed);
        let (why, grace) = if let Some(probe) = failed {
            let own = if probe == "startup" {
                &spec.startup_probe
            } else {
                &spec.liveness_probe
            };
            let own = own
                .as_ref()
                .and_then(|probe| probe.termination_grace_period_seconds);
            (
                format!(
                    "Container {} failed {probe} probe, will be restarted",
                    spec.name
                ),
                own,
            )
        } else if container.spec_hash != spec_hash(spec) {
            (
                format!(
                    "Container {} definition changed, will be restarted",
                    spec.name
                ),
                None,
            )
        } else if container.state == State::Unknown {
            (
                format!("Container {} is in an unknown state", spec.name),
                None,
            )
        } else {
            return;
        };
        let grace_s = grace.map_or(self.pod.grace_s(), |seconds| {
            seconds.clamp(0, i64::from(u32::MAX)) as u32
        });
        let hook = !self.memory.hooked.contains(&container.id);
        plan.actions.push(Action::StopContainers(vec![Stop {
            id: container.id.clone(),
            name: spec.name.clone(),
            grace_s,
            hook,
            why,
        }]));
    }

    fn start(&self, spec: &pod::Container, next: Next<'_>, sandbox: &Sandbox, plan: &mut Plan) {
        let Next::Start { attempt, backoff_s } = next else {
            return;
        };
        if self.wait_for(self.memory.problems.get(&spec.name), plan) {
            return;
        }
        plan.actions.push(Action::StartContainer {
            name: spec.name.clone(),
            sandbox_id: sandbox.id.clone(),
            attempt,
            backoff_s,
        });
    }

    /// Whether the problem says not yet.
    fn wait_for(&self, problem: Option<&Problem>, plan: &mut Plan) -> bool {
        match problem {
            Some(problem) if problem.retry_at > self.now => {
                plan.wait_until(problem.retry_at);
                true
            }
            _ => false,
        }
    }

    fn is_sidecar(&self, name: &str) -> bool {
        self.pod
            .spec
            .init_containers
            .iter()
            .any(|spec| spec.name == name && spec.is_sidecar())
    }

    /// Stops for all that has not ended and passes.
    fn stops(&self, passes: impl Fn(&Container) -> bool, grace_s: u32, why: &str) -> Vec<Stop> {
        let alive =
            |container: &&Container| matches!(container.state, State::Running | State::Unknown);
        let stop = |container: &Container| Stop {
            id: container.id.clone(),
            name: container.name.clone(),
            grace_s,
            hook: grace_s > 0 && !self.memory.hooked.contains(&container.id),
            why: format!("Stopping container {}: {why}", container.name),
        };
        self.observed
            .containers
            .iter()
            .filter(alive)
            .filter(|container| passes(container))
            .map(stop)
            .collect()
    }

    /// Stops everything in order; `remove` leaves nothing, else the ended containers stay for their logs.
    fn tear_down(&self, grace_s: u32, remove: bool) -> Plan {
        let mut plan = Plan {
            ended: !remove,
            ..Plan::default()
        };
        let why = if remove {
            "the pod is being deleted"
        } else {
            "the pod has ended"
        };
        let mains = self.stops(|container| !self.is_sidecar(&container.name), grace_s, why);
        if !mains.is_empty() {
            plan.actions.push(Action::StopContainers(mains));
            return plan;
        }
        for spec in self
            .pod
            .spec
            .init_containers
            .iter()
            .rev()
            .filter(|spec| spec.is_sidecar())
        {
            let sidecar = self.stops(|container| container.name == spec.name, grace_s, why);
            if !sidecar.is_empty() {
                plan.actions.push(Action::StopContainers(sidecar));
                return plan;
            }
        }
        let ready: Vec<&Sandbox> = self
            .observed
            .sandboxes
            .iter()
            .filter(|sandbox| sandbox.ready)
            .collect();
        if !ready.is_empty() {
            plan.actions
                .extend(ready.iter().map(|sandbox| Action::StopSandbox {
                    id: sandbox.id.clone(),
                }));
            return plan;
        }
        if !remove {
            return plan;
        }
        for container in &self.observed.containers {
            plan.actions.push(Action::RemoveContainer {
                id: container.id.clone(),
            });
        }
        for sandbox in &self.observed.sandboxes {
            // Its network may be held although its process is gone: stopping twice does no harm.
            plan.actions.push(Action::StopSandbox {
                id: sandbox.id.clone(),
            });
            plan.actions.push(Action::RemoveSandbox {
                id: sandbox.id.clone(),
            });
        }
        if plan.actions.is_empty() {
            plan.actions = vec![Action::CleanUp, Action::Gone];
        }
        plan
    }
}

impl Plan {
    fn wait_until(&mut self, at: Timestamp) {
        self.look_again = Some(self.look_again.map_or(at, |held| held.min(at)));
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;

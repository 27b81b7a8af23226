//! A pod's v1 PodStatus from what the runtime shows: phase, conditions, container statuses. Pure, and computed whole each time; times of
//! transitions are carried over from the status before where nothing changed.
//!
//! Fields that others write (qosClass, PodScheduled, readiness gates' conditions …) are kept as they were in the object.

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use crate::plan::{Container, Input, Next, State};
use crate::pod::{self, RestartPolicy};
use crate::{Timestamp, rfc3339};

/// Conditions that this agent writes; all others are kept.
const OURS: [&str; 4] = [
    "PodReadyToStartContainers",
    "Initialized",
    "ContainersReady",
    "Ready",
];

/// The status to report. `before` is the last one that was reported, or the object's own.
pub fn pod_status(input: &Input<'_>, host_ip: &str, before: &Value) -> Value {
    let mut status = match &input.pod.status {
        Value::Object(held) => held.clone(),
        _ => Map::new(),
    };
    for ours in [
        "reason",
        "message",
        "containerStatuses",
        "initContainerStatuses",
        "conditions",
    ] {
        status.remove(ours);
    }
    let inits: Vec<Value> = input
        .pod
        .spec
        .init_containers
        .iter()
        .map(|spec| container_status(input, spec, true))
        .collect();
    let mains: Vec<Value> = input
        .pod
        .spec
        .containers
        .iter()
        .map(|spec| container_status(input, spec, false))
        .collect();
    let phase = phase(input, &inits, &mains, before);
    status.insert("phase".into(), json!(phase));
    if input.memory.deadline_exceeded {
        status.insert("reason".into(), json!("DeadlineExceeded"));
        status.insert(
            "message".into(),
            json!("Pod was active on the node longer than the specified deadline"),
        );
    }
    if let Some(generation) = input.pod.metadata.generation {
        status.insert("observedGeneration".into(), json!(generation));
    }
    status.insert("startTime".into(), json!(rfc3339(input.memory.start_time)));
    status.insert("hostIP".into(), json!(host_ip));
    status.insert("hostIPs".into(), json!([{"ip": host_ip}]));
    addresses(input, host_ip, &mut status);
    let conditions = conditions(input, phase, &inits, &mains, before);
    status.insert("conditions".into(), Value::Array(conditions));
    if !inits.is_empty() {
        status.insert("initContainerStatuses".into(), Value::Array(inits));
    }
    status.insert("containerStatuses".into(), Value::Array(mains));
    Value::Object(status)
}

fn addresses(input: &Input<'_>, host_ip: &str, status: &mut Map<String, Value>) {
    let ips: Vec<String> = match input.current_sandbox() {
        Some(_) if input.pod.spec.host_network => vec![host_ip.to_owned()],
        Some(sandbox) => sandbox.ips.clone(),
        // A pod that has ended keeps the address that it had.
        None => return,
    };
    if let Some(first) = ips.first() {
        status.insert("podIP".into(), json!(first));
        status.insert(
            "podIPs".into(),
            ips.iter().map(|ip| json!({"ip": ip})).collect(),
        );
    }
}

/// Kubernetes: Pod lifecycle, Pod phase. A pod that has ended stays so.
fn phase(input: &Input<'_>, inits: &[Value], mains: &[Value], before: &Value) -> &'static str {
    match before["phase"].as_str() {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    if input.memory.deadline_exceeded {
        return "Failed";
    }
    for (spec, status) in input.pod.spec.init_containers.iter().zip(inits) {
        if spec.is_sidecar() || input.init_is_through(spec) {
            continue;
        }
        let failed = status["state"]["terminated"]["exitCode"]
            .as_i64()
            .is_some_and(|code| code != 0);
        if failed && input.policy_of(spec, true) == RestartPolicy::Never {
            return "Failed";
        }
        let never_begun = mains.iter().all(|main| main["containerID"].is_null());
        if never_begun && status["state"]["terminated"]["exitCode"] != 0 {
            return if input.memory.ended {
                "Failed"
            } else {
                "Pending"
            };
        }
    }
    let (mut waiting, mut running, mut succeeded, mut failed) = (0, 0, 0, 0);
    for status in mains {
        let state = &status["state"];
        if !state["running"].is_null() {
            running += 1;
        } else if let Some(code) = state["terminated"]["exitCode"].as_i64() {
            if code == 0 {
                succeeded += 1
            } else {
                failed += 1
            }
        } else if let Some(code) = status["lastState"]["terminated"]["exitCode"].as_i64() {
            // It waits to be restarted: it has run.
            if code == 0 {
                succeeded += 1
            } else {
                failed += 1
            }
        } else {
            waiting += 1;
        }
    }
    let stopping = matches!(input.fate, crate::plan::Fate::Stop { .. });
    match (waiting, running) {
        (1.., _) if input.memory.ended => "Failed",
        (1.., _) => "Pending",
        (0, 1..) => "Running",
        _ if input.pod.spec.restart_policy == RestartPolicy::Always
            && !stopping
            && !input.memory.ended =>
        {
            "Running"
        }
        _ if failed == 0 && succeeded > 0 => "Succeeded",
        _ if input.pod.spec.restart_policy == RestartPolicy::OnFailure
            && !stopping
            && !input.memory.ended =>
        {
            "Running"
        }
        _ => "Failed",
    }
}

fn conditions(
    input: &Input<'_>,
    phase: &str,
    inits: &[Value],
    mains: &[Value],
    before: &Value,
) -> Vec<Value> {
    let held: Vec<&Value> = input.pod.status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let mut all: Vec<Value> = held
        .iter()
        .filter(|held| !OURS.contains(&held["type"].as_str().unwrap_or_default()))
        .map(|held| (*held).clone())
        .collect();
    let completed = phase == "Succeeded";
    let has_network = input
        .current_sandbox()
        .is_some_and(|sandbox| input.pod.spec.host_network || !sandbox.ips.is_empty());
    let lagging: Vec<&str> = input
        .pod
        .spec
        .init_containers
        .iter()
        .zip(inits)
        .filter(|(spec, status)| {
            let begun = mains.iter().any(|main| !main["containerID"].is_null());
            let well = status["state"]["terminated"]["exitCode"] == 0 && !spec.is_sidecar();
            !(begun || well || input.init_is_through(spec))
        })
        .map(|(spec, _)| spec.name.as_str())
        .collect();
    let unready: Vec<&str> = mains
        .iter()
        .chain(
            inits
                .iter()
                .zip(&input.pod.spec.init_containers)
                .filter(|(_, spec)| spec.is_sidecar())
                .map(|(status, _)| status),
        )
        .filter(|status| status["ready"] != true)
        .filter_map(|status| status["name"].as_str())
        .collect();
    let gate_closed = input.pod.spec.readiness_gates.iter().find(|gate| {
        !held
            .iter()
            .any(|held| held["type"] == gate.condition_type.as_str() && held["status"] == "True")
    });
    let mut set = |kind: &str, ok: bool, reason: Option<&str>, message: Option<String>| {
        all.push(condition(input, kind, ok, reason, message, before));
    };
    set("PodReadyToStartContainers", has_network, None, None);
    if completed {
        set("Initialized", true, Some("PodCompleted"), None);
    } else if lagging.is_empty() {
        set("Initialized", true, None, None);
    } else {
        let message = format!("containers with incomplete status: [{}]", lagging.join(" "));
        set(
            "Initialized",
            false,
            Some("ContainersNotInitialized"),
            Some(message),
        );
    }
    let failed = phase == "Failed";
    let unready_message = || format!("containers with unready status: [{}]", unready.join(" "));
    let containers_ready = !completed && !failed && unready.is_empty();
    let (reason, message) = match (completed, failed, unready.is_empty()) {
        (true, _, _) => (Some("PodCompleted"), None),
        (_, true, _) => (Some("PodFailed"), None),
        (_, _, false) => (Some("ContainersNotReady"), Some(unready_message())),
        _ => (None, None),
    };
    match gate_closed {
        Some(gate) if containers_ready => {
            let message = format!(
                "the status of pod readiness gate \"{}\" is not \"True\", but False",
                gate.condition_type
            );
            set(
                "Ready",
                false,
                Some("ReadinessGatesNotReady"),
                Some(message),
            );
        }
        _ => set("Ready", containers_ready, reason, message.clone()),
    }
    set("ContainersReady", containers_ready, reason, message);
    all
}

fn condition(
    input: &Input<'_>,
    kind: &str,
    ok: bool,
    reason: Option<&str>,
    message: Option<String>,
    before: &Value,
) -> Value {
    let truth = if ok { "True" } else { "False" };
    let previous = before["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|held| held["type"] == kind);
    let since = previous
        .filter(|held| held["status"] == truth)
        .and_then(|held| held["lastTransitionTime"].as_str())
        .map_or_else(|| rfc3339(input.now), str::to_owned);
    let mut condition =
        json!({"type": kind, "status": truth, "lastProbeTime": null, "lastTransitionTime": since});
    if let Some(generation) = input.pod.metadata.generation {
        condition["observedGeneration"] = json!(generation);
    }
    if let Some(reason) = reason {
        condition["reason"] = json!(reason);
    }
    if let Some(message) = message {
        condition["message"] = json!(message);
    }
    condition
}

fn container_status(input: &Input<'_>, spec: &pod::Container, init: bool) -> Value {
    let attempts = input.attempts(&spec.name);
    let latest = attempts.first().copied();
    let previous = attempts.get(1).copied();
    let (state, last_shown) = state(input, spec, init, latest);
    let last = if last_shown { latest } else { previous };
    let started = latest.is_some_and(|latest| input.is_started(spec, latest));
    let once = init && !spec.is_sidecar();
    let ready = match latest {
        // An init container is ready once it has ended well.
        Some(latest) if once => latest.state == State::Exited && latest.exit_code == 0,
        Some(latest) => input.is_ready(spec, latest) && !input.memory.deadline_exceeded,
        None => false,
    };
    let mut status = json!({
        "name": spec.name,
        "state": state,
        "lastState": last.filter(|last| last.state == State::Exited).map_or(json!({}), |last| json!({"terminated": terminated(last)})),
        "ready": ready,
        "restartCount": latest.map_or(0, |latest| latest.attempt),
        "image": latest.map_or(spec.image.as_str(), |latest| if latest.image.is_empty() { &spec.image } else { &latest.image }),
        "imageID": latest.map_or("", |latest| latest.image_id.as_str()),
        "started": started,
    });
    if let Some(latest) = latest {
        status["containerID"] = json!(format!("containerd://{}", latest.id));
    }
    status
}

/// The state, and whether the newest attempt is told as the last state, since the next is being waited for.
fn state(
    input: &Input<'_>,
    spec: &pod::Container,
    init: bool,
    latest: Option<&Container>,
) -> (Value, bool) {
    let waiting = |reason: &str, message: Option<&str>| {
        let mut waiting = json!({"reason": reason});
        if let Some(message) = message {
            waiting["message"] = json!(message);
        }
        json!({"waiting": waiting})
    };
    let problem = input.memory.problems.get(&spec.name);
    let Some(latest) = latest else {
        if let Some(problem) = problem {
            return (
                waiting(problem.reason_at(input.now), Some(&problem.message)),
                false,
            );
        }
        let initializing = !init
            && input
                .pod
                .spec
                .init_containers
                .iter()
                .any(|init| !input.init_is_through(init));
        let queued = init
            && input
                .pod
                .spec
                .init_containers
                .first()
                .is_some_and(|first| first.name != spec.name);
        let reason = if initializing || queued {
            "PodInitializing"
        } else {
            "ContainerCreating"
        };
        return (waiting(reason, None), false);
    };
    match latest.state {
        State::Created => (waiting("ContainerCreating", None), false),
        State::Running => (
            json!({"running": {"startedAt": rfc3339(latest.started_at.unwrap_or(latest.created_at))}}),
            false,
        ),
        State::Unknown | State::Exited => {
            let stopping =
                matches!(input.fate, crate::plan::Fate::Stop { .. }) || input.memory.ended;
            if stopping {
                return (json!({"terminated": terminated(latest)}), false);
            }
            if let Some(problem) = problem {
                return (
                    waiting(problem.reason_at(input.now), Some(&problem.message)),
                    true,
                );
            }
            match input.next(&spec.name, input.policy_of(spec, init)) {
                Next::BackOff { until } if until - input.now > TimeDelta::zero() => {
                    let message = format!(
                        "back-off {} restarting failed container={} pod={}_{}({})",
                        go_duration(latest.backoff_s),
                        spec.name,
                        input.pod.metadata.name,
                        input.pod.metadata.namespace,
                        input.pod.metadata.uid
                    );
                    (waiting("CrashLoopBackOff", Some(&message)), true)
                }
                _ => (json!({"terminated": terminated(latest)}), false),
            }
        }
    }
}

/// Seconds as Go prints them: `10s`, `1m20s`, `5m0s`.
fn go_duration(seconds: u32) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

fn terminated(container: &Container) -> Value {
    let time = |at: Option<Timestamp>| rfc3339(at.unwrap_or(container.created_at));
    let reason = match (container.reason.as_str(), container.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let mut state = json!({
        "exitCode": container.exit_code,
        "reason": reason,
        "startedAt": time(container.started_at),
        "finishedAt": time(container.finished_at),
        "containerID": format!("containerd://{}", container.id),
    });
    if !container.message.is_empty() {
        state["message"] = json!(container.message);
    }
    state
}

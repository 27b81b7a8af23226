//! A Deployment's status: what is counted from its ReplicaSets, and the conditions Available, Progressing and ReplicaFailure.
//! Only this reconciler writes it. Reasons and messages are Kubernetes'. Source: pkg/controller/deployment/progress.go, util.

use super::Rollout;
use crate::change::{map_at, put, set_unless_zero, unchanged};
use crate::conditions::{self, Condition};
use crate::world::{Thing, rfc3339};
use crate::{Decision, Draft, Waiting};
use eventstore::{Intent, Time};
use serde_json::{Value, json};

const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const COMPLETE: &str = "NewReplicaSetAvailable";
const PAUSED: &str = "DeploymentPaused";

/// Takes note of a generation and does nothing more.
pub fn observe_only(thing: &Thing) -> Decision {
    let mut object = thing.object.to_value();
    if object["status"]["observedGeneration"].as_i64().unwrap_or(0) >= thing.meta.generation {
        return Decision::nothing();
    }
    map_at(&mut object, "status").insert("observedGeneration".into(), json!(thing.meta.generation));
    let change = put(&thing.object.key, &object);
    Decision::propose(Draft {
        intent: Intent::Status,
        expectations: vec![unchanged(thing)],
        changes: vec![change],
    })
}

/// Paused and resumed are told as conditions, so that a pause does not run into the deadline.
pub fn pause_or_resume(rollout: &mut Rollout) {
    if rollout.deployment.progress_deadline_s.is_none() {
        return;
    }
    let reason = progressing(&rollout.object)
        .map(|condition| condition["reason"].as_str().unwrap_or("").to_owned());
    let paused = reason.as_deref() == Some(PAUSED);
    match (rollout.deployment.paused, paused) {
        _ if reason.as_deref() == Some(TIMED_OUT) => {}
        (true, false) => set(
            rollout,
            &Condition::new("Progressing", "Unknown", PAUSED, "Deployment is paused"),
        ),
        (false, true) => set(
            rollout,
            &Condition::new(
                "Progressing",
                "Unknown",
                "DeploymentResumed",
                "Deployment is resumed",
            ),
        ),
        (true, true) | (false, false) => {}
    }
}

/// A ReplicaSet of the template was there before.
pub fn found(rollout: &mut Rollout, name: &str) {
    if rollout.deployment.progress_deadline_s.is_some() && progressing(&rollout.object).is_none() {
        set(
            rollout,
            &Condition::new(
                "Progressing",
                "True",
                "FoundNewReplicaSet",
                format!("Found new replica set \"{name}\""),
            ),
        );
    }
}

/// A ReplicaSet of the template is made by this decision.
pub fn made(rollout: &mut Rollout, name: &str) {
    if rollout.deployment.progress_deadline_s.is_some() {
        set(
            rollout,
            &Condition::new(
                "Progressing",
                "True",
                "NewReplicaSetCreated",
                format!("Created new replica set \"{name}\""),
            ),
        );
    }
}

/// The numbers, and whether enough is available.
pub fn count(rollout: &mut Rollout) {
    let sum = |of: fn(&super::Version) -> i64| rollout.all().map(of).sum::<i64>();
    let replicas = sum(|version| version.view.status_replicas);
    let ready = sum(|version| version.view.status_ready);
    let available = sum(|version| version.view.status_available);
    let asked = sum(|version| version.size);
    let terminating = sum(|version| version.view.status_terminating.unwrap_or(0));
    let updated = rollout
        .new
        .as_ref()
        .map_or(0, |new| new.view.status_replicas);
    let generation = rollout.thing.meta.generation;
    let status = map_at(&mut rollout.object, "status");
    set_unless_zero(status, "observedGeneration", generation);
    set_unless_zero(status, "replicas", replicas);
    set_unless_zero(status, "updatedReplicas", updated);
    set_unless_zero(status, "readyReplicas", ready);
    set_unless_zero(status, "availableReplicas", available);
    set_unless_zero(status, "unavailableReplicas", (asked - available).max(0));
    status.insert("terminatingReplicas".into(), json!(terminating));
    let condition = if available >= rollout.budget.least_available() {
        Condition::new(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        Condition::new(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    set(rollout, &condition);
}

/// Whether the rollout is complete, moves, or has stood still for too long. After `count`.
pub fn judge_progress(rollout: &mut Rollout) {
    copy_failure(rollout);
    let Some(deadline_s) = rollout.deployment.progress_deadline_s else {
        conditions::remove(&mut rollout.object["status"], "Progressing");
        return;
    };
    let before = rollout.before["status"].clone();
    let status = rollout.object["status"].clone();
    let current = progressing(&rollout.object).cloned();
    let number = |status: &Value, field: &str| status[field].as_i64().unwrap_or(0);
    let reason = current
        .as_ref()
        .map_or("", |condition| condition["reason"].as_str().unwrap_or(""));
    if number(&status, "replicas") == number(&status, "updatedReplicas") && reason == COMPLETE {
        return;
    }
    let wanted = rollout.deployment.replicas;
    let all_are = |field: &str| number(&status, field) == wanted;
    let old = |status: &Value| number(status, "replicas") - number(status, "updatedReplicas");
    let more = |field: &str| number(&status, field) > number(&before, field);
    let subject = match &rollout.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.key.name),
        None => format!("Deployment \"{}\"", rollout.thing.object.key.name),
    };
    if all_are("updatedReplicas") && all_are("replicas") && all_are("availableReplicas") {
        set(
            rollout,
            &Condition::new(
                "Progressing",
                "True",
                COMPLETE,
                format!("{subject} has successfully progressed."),
            ),
        );
    } else if more("updatedReplicas")
        || more("readyReplicas")
        || more("availableReplicas")
        || old(&status) < old(&before)
    {
        progress(
            rollout,
            current.as_ref(),
            format!("{subject} is progressing."),
        );
    } else if timed_out(current.as_ref(), deadline_s, rollout.now) {
        set(
            rollout,
            &Condition::new(
                "Progressing",
                "False",
                TIMED_OUT,
                format!("{subject} has timed out progressing."),
            ),
        );
    }
}

/// It moved: the deadline runs anew from now.
fn progress(rollout: &mut Rollout, current: Option<&Value>, message: String) {
    let went_on = current
        .filter(|current| current["status"] == "True")
        .map(|current| current["lastTransitionTime"].clone());
    let now = json!(rollout.now.to_string());
    let condition = json!({
        "type": "Progressing", "status": "True", "lastUpdateTime": now, "lastTransitionTime": went_on.unwrap_or_else(|| now.clone()),
        "reason": "ReplicaSetUpdated", "message": message,
    });
    conditions::put(&mut rollout.object["status"], "Progressing", condition);
}

fn timed_out(current: Option<&Value>, deadline_s: i64, now: Time) -> bool {
    let Some(current) = current else { return false };
    match current["reason"].as_str() {
        Some(COMPLETE) => false,
        Some(TIMED_OUT) => true,
        _ => deadline(current, deadline_s).is_some_and(|deadline| deadline < now),
    }
}

fn deadline(progressing: &Value, deadline_s: i64) -> Option<Time> {
    rfc3339(progressing.get("lastUpdateTime"))
        .map(|from| from.plus_ms(deadline_s.saturating_mul(1000)))
}

/// What a ReplicaSet says of failing to make pods, the new one's first.
fn copy_failure(rollout: &mut Rollout) {
    let failure = rollout
        .all()
        .find_map(|version| version.view.failure.clone());
    match failure {
        Some(failure) => {
            let text = |field: &str| failure[field].as_str().unwrap_or("").to_owned();
            let status = if failure["status"] == "True" {
                "True"
            } else {
                "False"
            };
            set(
                rollout,
                &Condition::new("ReplicaFailure", status, &text("reason"), text("message")),
            );
        }
        None => {
            conditions::remove(&mut rollout.object["status"], "ReplicaFailure");
        }
    }
}

/// When the deadline is due, or a pod that is ready becomes available.
pub fn look_again(rollout: &Rollout) -> Option<Time> {
    let condition = progressing(&rollout.object)?;
    let runs = condition["status"] == "True" && condition["reason"] != COMPLETE
        || condition["reason"] == "DeploymentResumed";
    let deadline = rollout
        .deployment
        .progress_deadline_s
        .filter(|_| runs && !rollout.deployment.paused);
    // Kubernetes, too, looks a second later, for times are written in whole seconds.
    deadline.and_then(|seconds| deadline_after(condition, seconds))
}

fn deadline_after(condition: &Value, seconds: i64) -> Option<Time> {
    deadline(condition, seconds).map(|at| at.plus_ms(1000))
}

/// Why it is not done, if it is not.
pub fn waits_for(rollout: &Rollout) -> Option<Waiting> {
    if progressing(&rollout.object).is_some_and(|condition| condition["reason"] == TIMED_OUT) {
        return Some(Waiting::DeadlineExceeded);
    }
    let available = rollout.object["status"]["availableReplicas"]
        .as_i64()
        .unwrap_or(0);
    let wanted = rollout.deployment.replicas;
    (!rollout.complete()).then_some(Waiting::Pods { wanted, available })
}

fn progressing(object: &Value) -> Option<&Value> {
    conditions::find(&object["status"], "Progressing")
}

/// Sets a condition unless it has this status and reason already; its message and times then stay, as in Kubernetes.
fn set(rollout: &mut Rollout, condition: &Condition) {
    map_at(&mut rollout.object, "status");
    let status = &mut rollout.object["status"];
    let before = conditions::find(status, condition.name);
    if before.is_some_and(|before| {
        before["status"] == condition.status && before["reason"] == condition.reason.as_str()
    }) {
        return;
    }
    conditions::set(
        status,
        condition,
        &json!({ "lastUpdateTime": rollout.now.to_string() }),
        rollout.now,
    );
}

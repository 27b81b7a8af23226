//! Once all faults are healed the cluster converges: every server stands at the same revision with the same digest, every Deployment has
//! the available replicas it asks for, every node is ready, and the log is at the level that all servers know.

use super::Violation;
use eventstore::{Object, View};
use serde_json::Value;
use std::sync::Arc;

/// Why it has not converged yet; None when it has.
pub fn missing(views: &[(String, View)], servers: usize) -> Option<String> {
    if views.len() < servers {
        return Some(format!("{} of {servers} servers are up", views.len()));
    }
    let (first_name, first) = views.first()?;
    for (name, view) in views {
        if (view.revision, view.digest) != (first.revision, first.digest) {
            return Some(format!(
                "{name} is at revision {}, {first_name} at {}",
                view.revision, first.revision
            ));
        }
    }
    if first.level != eventstore::LEVEL {
        return Some(format!("the log is at level {}", first.level));
    }
    let deployments = first.list("apps/deployments", None).find_map(deployment);
    deployments.or_else(|| first.list("nodes", None).find_map(node))
}

pub fn violation(missing: String) -> Violation {
    Violation::new("convergence", missing)
}

fn deployment(object: &Arc<Object>) -> Option<String> {
    let value = object.to_value();
    let (spec, status) = (&value["spec"], &value["status"]);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let observed = status["observedGeneration"] == value["metadata"]["generation"];
    let done = observed
        && count("availableReplicas") == wanted
        && count("updatedReplicas") == wanted
        && count("replicas") == wanted;
    (!done).then(|| format!("{} wants {wanted}, its status is {status}", object.key))
}

fn node(object: &Arc<Object>) -> Option<String> {
    let value = object.to_value();
    let conditions = value["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready")
        .map(|condition| &condition["status"]);
    let ready = ready.and_then(Value::as_str) == Some("True");
    (!ready).then(|| format!("{} is not ready", object.key))
}

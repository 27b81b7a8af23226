//! What may change of a pod that is there: its images, its deadline, more tolerations. All else would be another pod.

use super::defaults::names as names_of;
use crate::error::FieldError;
use crate::resources::checks::{Findings, items, object_at, range, text};
use crate::resources::names;
use serde_json::{Value, json};

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
     `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const DEADLINE_MAX_S: i64 = i32::MAX as i64;
/// So many differing fields are shown in a refusal.
const DIFFERENCES_MAX: usize = 20;

pub fn validate(old: &Value, new: &Value) -> Vec<FieldError> {
    let (before, after) = (&old["spec"], &new["spec"]);
    let mut found = Findings::new();
    for key in ["containers", "initContainers"] {
        if items(&before[key]).len() != items(&after[key]).len() {
            let what = if key == "containers" {
                "containers"
            } else {
                "init containers"
            };
            found.forbidden(
                format!("spec.{key}"),
                format!("pod updates may not add or remove {what}"),
            );
        }
    }
    if !found.0.is_empty() {
        return found.0;
    }
    validate_deadline(before, after, &mut found);
    validate_tolerations(before, after, &mut found);
    let mut allowed = after.clone();
    copy_what_may_change(before, &mut allowed);
    if allowed != *before {
        found.forbidden(
            "spec",
            format!("{MAY_CHANGE}\n{}", difference(before, &allowed)),
        );
    }
    found.0
}

fn validate_deadline(before: &Value, after: &Value, found: &mut Findings) {
    let path = "spec.activeDeadlineSeconds";
    let (before, after) = (
        before["activeDeadlineSeconds"].as_i64(),
        after["activeDeadlineSeconds"].as_i64(),
    );
    match (before, after) {
        (_, Some(after)) if !(0..=DEADLINE_MAX_S).contains(&after) => {
            found.invalid(path, after, range(0, DEADLINE_MAX_S))
        }
        (Some(before), Some(after)) if before < after => {
            found.invalid(path, after, "must be less than or equal to previous value")
        }
        (Some(_), None) => found.invalid(
            path,
            Value::Null,
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
}

/// Each toleration that was there is there still, though it may last longer or shorter.
fn validate_tolerations(before: &Value, after: &Value, found: &mut Findings) {
    let without_time = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.shift_remove("tolerationSeconds");
        }
        toleration
    };
    let kept: Vec<Value> = items(&after["tolerations"])
        .iter()
        .map(without_time)
        .collect();
    if items(&before["tolerations"])
        .iter()
        .any(|toleration| !kept.contains(&without_time(toleration)))
    {
        found.forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

/// Makes `spec` what it was, where it may differ: what differs still may not.
fn copy_what_may_change(before: &Value, spec: &mut Value) {
    for key in ["containers", "initContainers"] {
        for (container, before) in spec[key]
            .as_array_mut()
            .into_iter()
            .flatten()
            .zip(items(&before[key]))
        {
            if let Some(container) = container.as_object_mut() {
                container.insert("image".to_owned(), before["image"].clone());
            }
        }
    }
    // A gate is taken away when what it waited for is there; none is put up later.
    let gates = names_of(&before["schedulingGates"]);
    let gates_only_removed = names_of(&spec["schedulingGates"])
        .iter()
        .all(|gate| gates.contains(gate));
    let was_forced = before["terminationGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|seconds| seconds < 0);
    let now_one = spec["terminationGracePeriodSeconds"] == 1;
    let mut keys = vec!["activeDeadlineSeconds", "tolerations"];
    if gates_only_removed {
        keys.push("schedulingGates");
    }
    if was_forced && now_one {
        keys.push("terminationGracePeriodSeconds");
    }
    for key in keys {
        crate::resources::checks::take_from(before, spec, key);
    }
    if spec["initContainers"].is_null()
        && let Some(map) = spec.as_object_mut()
    {
        map.retain(|_, value| !value.is_null());
    }
}

/// The fields that differ, in the shape of a diff.
fn difference(before: &Value, after: &Value) -> String {
    let mut lines = Vec::new();
    compare("spec", before, after, &mut lines);
    let (removed, added) = (
        lines.iter().filter(|line| line.starts_with('-')).count(),
        lines.iter().filter(|line| line.starts_with('+')).count(),
    );
    format!("@@ -1,{removed} +1,{added} @@\n{}\n", lines.join("\n"))
}

fn compare(path: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    if before == after || lines.len() >= 2 * DIFFERENCES_MAX {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let keys = old
                .keys()
                .chain(new.keys().filter(|key| !old.contains_key(*key)));
            for key in keys {
                compare(
                    &format!("{path}.{key}"),
                    &before[key.as_str()],
                    &after[key.as_str()],
                    lines,
                );
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                compare(&format!("{path}[{index}]"), old, new, lines);
            }
        }
        _ => {
            for (sign, value) in [('-', before), ('+', after)] {
                if !value.is_null() {
                    lines.push(format!("{sign} {path}: {value}"));
                }
            }
        }
    }
}

/// What an agent reports: addresses must be some, and a container that is over stays over where nothing restarts it.
pub fn validate_status(old: &Value, new: &Value) -> Vec<FieldError> {
    let status = &new["status"];
    let mut found = Findings::new();
    let nominated = text(&status["nominatedNodeName"]);
    if !nominated.is_empty() {
        found.all(
            "status.nominatedNodeName",
            nominated,
            names::subdomain(nominated),
        );
    }
    let policy = text(&old["spec"]["restartPolicy"]);
    for key in ["containerStatuses", "initContainerStatuses"] {
        validate_transitions(
            &old["status"][key],
            &status[key],
            policy,
            &old["spec"],
            key,
            &mut found,
        );
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, ip) in items(&status["podIPs"]).iter().enumerate() {
        let (path, value) = (format!("status.podIPs[{index}]"), text(&ip["ip"]));
        found.all(&path, value, names::ip(value));
        if seen.contains(&value) {
            found.duplicate(path, ip.clone());
        }
        seen.push(value);
    }
    found.0
}

fn validate_transitions(
    old: &Value,
    new: &Value,
    policy: &str,
    spec: &Value,
    key: &str,
    found: &mut Findings,
) {
    if policy == "Always" {
        return;
    }
    for (index, status) in items(new).iter().enumerate() {
        let before = items(old)
            .iter()
            .find(|before| before["name"] == status["name"]);
        let Some(ended) = before
            .map(|before| &before["state"]["terminated"])
            .filter(|ended| !ended.is_null())
        else {
            continue;
        };
        let restarts_itself = ["containers", "initContainers"]
            .iter()
            .flat_map(|key| items(&spec[*key]))
            .any(|container| {
                container["name"] == status["name"] && !container["restartPolicy"].is_null()
            });
        // A container that failed is tried again, unless nothing ever is.
        let tried_again = policy == "OnFailure" && ended["exitCode"] != 0;
        if status["state"]["terminated"].is_null() && !tried_again && !restarts_itself {
            found.forbidden(
                format!("status.{key}[{index}].state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}

/// Keeps the one address and the many in step, whichever was written.
pub fn pair_addresses(object: &mut Value) {
    let Some(status) = object_at(object, "status") else {
        return;
    };
    let first = status
        .get("podIPs")
        .map(|ips| ips[0]["ip"].clone())
        .filter(Value::is_string);
    let one = status.get("podIP").filter(|ip| ip.is_string()).cloned();
    match (first, one) {
        (Some(first), _) => status.insert("podIP".to_owned(), first),
        (None, Some(one)) => status.insert("podIPs".to_owned(), json!([{"ip": one}])),
        (None, None) => None,
    };
}

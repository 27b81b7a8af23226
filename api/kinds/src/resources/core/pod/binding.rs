//! Binding and Eviction: what is posted to a pod instead of being stored.

use crate::error::StatusError;
use crate::kind::Checked;
use crate::resources::checks::{Findings, entries, items, map_at, object_at, text};
use serde_json::{Value, json};

const BINDING: &str = "pods/binding";

/// The pod on its node. `now`: RFC 3339 with seconds. A pod is bound once, and the generation does not count it.
pub fn bind(pod: &Value, binding: &Value, now: &str) -> Checked<Value> {
    let name = text(&pod["metadata"]["name"]);
    let target = &binding["target"];
    let mut found = Findings::new();
    if !matches!(text(&target["kind"]), "" | "Node") {
        found.not_supported("target.kind", text(&target["kind"]), &["Node", "<empty>"]);
    }
    if text(&target["name"]).is_empty() {
        found.required("target.name", "");
    }
    if !found.0.is_empty() {
        return Err(StatusError::invalid(
            "",
            "Binding",
            text(&binding["metadata"]["name"]),
            &found.0,
        ));
    }
    let refuse = |why: String| Err(StatusError::conflict("", BINDING, name, &why));
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return refuse(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let node = text(&pod["spec"]["nodeName"]);
    if !node.is_empty() {
        return refuse(format!("pod {name} is already assigned to node {node:?}"));
    }
    if !items(&pod["spec"]["schedulingGates"]).is_empty() {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    Ok(bound(pod, binding, now))
}

fn bound(pod: &Value, binding: &Value, now: &str) -> Value {
    let mut pod = pod.clone();
    if let Some(spec) = object_at(&mut pod, "spec") {
        spec.insert("nodeName".to_owned(), binding["target"]["name"].clone());
    }
    if let Some(metadata) = object_at(&mut pod, "metadata") {
        for key in ["labels", "annotations"] {
            if entries(&binding["metadata"][key]).next().is_none() {
                continue;
            }
            if let Some(map) = map_at(metadata, key) {
                map.extend(
                    entries(&binding["metadata"][key])
                        .map(|(key, value)| (key.clone(), value.clone())),
                );
            }
        }
    }
    if let Some(status) = object_at(&mut pod, "status") {
        let conditions = status.entry("conditions").or_insert_with(|| json!([]));
        if let Some(conditions) = conditions.as_array_mut() {
            conditions.retain(|condition| condition["type"] != "PodScheduled");
            conditions.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
        }
    }
    pod
}

/// What an Eviction asks for, as DeleteOptions. Whether a budget forbids it is not asked here.
pub fn eviction_options(pod_name: &str, eviction: &Value) -> Checked<Value> {
    let name = text(&eviction["metadata"]["name"]);
    if !name.is_empty() && name != pod_name {
        return Err(StatusError::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    Ok(match &eviction["deleteOptions"] {
        Value::Null => json!({}),
        options => options.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let pod = json!({"metadata": {"name": "p", "generation": 1}, "spec": {}, "status": {"phase": "Pending"}});
        let to = |node: &str| json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "target": {"kind": "Node", "name": node}});
        let made = bind(&pod, &to("n"), "2026-01-02T03:04:05Z").unwrap();
        assert_eq!(
            made,
            json!({"metadata": {"name": "p", "generation": 1, "labels": {"a": "b"}}, "spec": {"nodeName": "n"},
                   "status": {"phase": "Pending", "conditions": [
                       {"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-02T03:04:05Z"}]}})
        );
        let with = |change: fn(&mut Value)| {
            let mut pod = pod.clone();
            change(&mut pod);
            pod
        };
        let rows = [
            (
                made,
                to("m"),
                409,
                "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\"",
            ),
            (
                with(|pod| pod["metadata"]["deletionTimestamp"] = json!("x")),
                to("n"),
                409,
                "Operation cannot be fulfilled on pods/binding \"p\": pod p is being deleted, cannot be assigned to a host",
            ),
            (
                with(|pod| pod["spec"]["schedulingGates"] = json!([{"name": "g"}])),
                to("n"),
                409,
                "Operation cannot be fulfilled on pods/binding \"p\": pod p has non-empty .spec.schedulingGates",
            ),
            (
                pod.clone(),
                to(""),
                422,
                "Binding \"p\" is invalid: target.name: Required value",
            ),
        ];
        for (pod, binding, code, message) in rows {
            let refused = bind(&pod, &binding, "now").unwrap_err();
            assert_eq!((refused.code, refused.message.as_str()), (code, message));
        }
    }

    #[test]
    fn evictions_carry_options() {
        assert_eq!(
            eviction_options("p", &json!({"metadata": {"name": "p"}})).unwrap(),
            json!({})
        );
        let options = json!({"gracePeriodSeconds": 3});
        assert_eq!(
            eviction_options("p", &json!({"deleteOptions": options})).unwrap(),
            options
        );
        assert_eq!(
            eviction_options("p", &json!({"metadata": {"name": "q"}}))
                .unwrap_err()
                .code,
            400
        );
    }
}

//! Pod: containers that live and die together on one node. Nearly all of it is fixed once it is made.

pub mod binding;
mod cells;
pub mod defaults;
mod qos;
mod update;
pub mod validation;
pub mod warnings;

use crate::kind::{Column, Context, Hooks, Kind, Subresource};
use crate::resources::checks::{items, map_at, object_at, set_default, take_from, text};
use crate::resources::strategy::{count_generation, keep_all_but_status, keep_status};
use crate::table::{AGE, NAME, column};
use serde_json::{Map, Value, json};

pub static KIND: Kind = Kind {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        Subresource::Binding,
        Subresource::Eviction,
        Subresource::Log,
        Subresource::Status,
    ],
    schema: "io.k8s.api.core.v1.Pod",
    columns: COLUMNS,
    selectable: &[
        "spec.hostNetwork",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.nominatedNodeName",
        "status.phase",
        "status.podIP",
        "status.podIPs",
    ],
    generation: true,
    returns_deleted: true,
    hooks: Hooks {
        default: defaults::pod,
        prepare_create,
        prepare_update,
        prepare_status,
        validate: validation::pod,
        validate_update: update::validate,
        validate_status: update::validate_status,
        warnings: warnings::of_pod,
        cells: cells::cells,
        delete_grace,
        field,
        ..Hooks::NONE
    },
    ..Kind::ROW
};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Ready",
        "string",
        0,
        "The aggregate readiness state of this pod for accepting traffic.",
    ),
    column(
        "Status",
        "string",
        0,
        "The aggregate status of the containers in this pod.",
    ),
    column(
        "Restarts",
        "string",
        0,
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    AGE,
    column(
        "IP",
        "string",
        1,
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    column(
        "Node",
        "string",
        1,
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    ),
    column(
        "Nominated Node",
        "string",
        1,
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods. This field does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is scheduled.",
    ),
    column(
        "Readiness Gates",
        "string",
        1,
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    ),
];

fn field(object: &Value, path: &str) -> Option<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let value = match path {
        "spec.hostNetwork" => return Some((spec["hostNetwork"] == true).to_string()),
        "spec.nodeName"
        | "spec.restartPolicy"
        | "spec.schedulerName"
        | "spec.serviceAccountName" => &spec[path.strip_prefix("spec.")?],
        "status.podIPs" => {
            return Some(
                items(&status["podIPs"])
                    .iter()
                    .map(|ip| text(&ip["ip"]))
                    .collect::<Vec<_>>()
                    .join(","),
            );
        }
        "status.nominatedNodeName" | "status.phase" | "status.podIP" => {
            &status[path.strip_prefix("status.")?]
        }
        _ => return None,
    };
    Some(text(value).to_owned())
}

fn prepare_create(object: &mut Value, _: &Context) {
    object["status"] = json!({"phase": "Pending", "qosClass": qos::class(&object["spec"])});
    if !items(&object["spec"]["schedulingGates"]).is_empty() {
        object["status"]["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": null,
            "lastTransitionTime": null,
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
}

/// How long a pod stays on a node that has stopped answering (Kubernetes: the admission plugin DefaultTolerationSeconds, which
/// is the caller's to run, for the time is a setting). Adds the two tolerations, each unless the pod says itself what it does about the taint.
pub fn tolerate_a_lost_node(spec: &mut Map<String, Value>, seconds: i64) {
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(tolerations) = tolerations.as_array_mut() else {
        return;
    };
    for taint in [NOT_READY, UNREACHABLE] {
        if !tolerations
            .iter()
            .any(|toleration| covers(toleration, taint))
        {
            tolerations.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}));
        }
    }
}

fn covers(toleration: &Value, taint: &str) -> bool {
    let (key, effect) = (text(&toleration["key"]), text(&toleration["effect"]));
    (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
}

fn prepare_update(old: &Value, new: &mut Value, _: &Context) {
    keep_status(old, new);
    keep_admitted(&old["spec"], new);
    let changed = old["spec"] != new["spec"];
    count_generation(old, new, changed);
}

/// What admission gave the pod stays, where a replacement made from its first manifest doesn't name it.
fn keep_admitted(old: &Value, new: &mut Value) {
    let Some(spec) = object_at(new, "spec") else {
        return;
    };
    for key in ["priority", "preemptionPolicy"] {
        if let Some(value) = old.get(key) {
            set_default(spec, key, value.clone());
        }
    }
    for taint in [NOT_READY, UNREACHABLE] {
        let has = |tolerations: &Value| {
            items(tolerations)
                .iter()
                .any(|toleration| covers(toleration, taint))
        };
        let given = items(&old["tolerations"])
            .iter()
            .find(|toleration| toleration["key"] == taint && covers(toleration, taint));
        if let Some(given) = given.filter(|_| !spec.get("tolerations").is_some_and(has)) {
            let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
            if let Some(tolerations) = tolerations.as_array_mut() {
                tolerations.push(given.clone());
            }
        }
    }
}

/// An agent may not make a pod anybody's but its owner's, nor change how it is treated under pressure.
fn prepare_status(old: &Value, new: &mut Value, _: &Context) {
    keep_all_but_status(old, new);
    if let Some(metadata) = new.get_mut("metadata") {
        take_from(&old["metadata"], metadata, "ownerReferences");
    }
    if let Some(status) = new.as_object_mut().and_then(|map| map_at(map, "status"))
        && let Some(class) = old["status"].get("qosClass")
    {
        set_default(status, "qosClass", class.clone());
    }
}

/// What nothing runs of is gone at once; the rest gets the time that its spec, or the caller, gives it.
fn delete_grace(object: &Value, asked: Option<i64>) -> Option<i64> {
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64();
    let grace = asked.or(own).unwrap_or_default();
    let bound = !text(&object["spec"]["nodeName"]).is_empty();
    let finished = matches!(text(&object["status"]["phase"]), "Failed" | "Succeeded");
    if !bound || finished {
        return Some(0);
    }
    // Less than nothing is as fast as can be, but not by force.
    Some(if grace < 0 { 1 } else { grace })
}

#[cfg(test)]
mod tests;

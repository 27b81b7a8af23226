//! What a Go server leaves out when it writes: nulls, empty lists and maps, and the zero of fields that are no pointers
//! (`omitempty`). Clients send these (`"strategy": {}`, `"creationTimestamp": null`, `"unschedulable": false`); left in, an
//! unchanged object would look changed and a pod's update would be refused.
//!
//! The names below are unique enough within the built-in kinds to stand without a path. Custom resources never come here.

use serde_json::{Map, Value};

/// Fields that are written although they are null, empty or zero.
const KEPT: &[&str] =
    &["eventTime", "firstTimestamp", "lastTimestamp", "lastProbeTime", "reportingComponent", "reportingInstance", "endpoints", "boundObjectRef"];

/// Maps with keys of the user's choice: left out when empty, and never looked into.
const MAPS: &[&str] = &[
    "annotations",
    "binaryData",
    "data",
    "deprecatedTopology",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "options",
    "overhead",
    "requests",
    "stringData",
    "volumeAttributes",
];

/// Maps likewise, where another kind has a struct of that name: only when empty.
const MAPS_IF_EMPTY: &[&str] = &["allocatable", "capacity", "matchLabels"];

/// Booleans and numbers that are no pointers: false and 0 are left out.
const ZEROS: &[&str] = &[
    "availableReplicas",
    "fullyLabeledReplicas",
    "generation",
    "healthCheckNodePort",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "nodePort",
    "observedGeneration",
    "paused",
    "publishNotReadyAddresses",
    "readyReplicas",
    "stdin",
    "stdinOnce",
    "tty",
    "unavailableReplicas",
    "unschedulable",
    "updatedReplicas",
];

/// Strings that are no pointers and not required.
const EMPTY_STRINGS: &[&str] = &[
    "action",
    "clusterIP",
    "dnsPolicy",
    "effect",
    "externalName",
    "generateName",
    "hostIP",
    "hostname",
    "imagePullPolicy",
    "key",
    "loadBalancerIP",
    "medium",
    "message",
    "namespace",
    "nodeName",
    "nominatedNodeName",
    "operator",
    "podCIDR",
    "podIP",
    "priorityClassName",
    "protocol",
    "providerID",
    "reason",
    "schedulerName",
    "serviceAccount",
    "serviceAccountName",
    "subPath",
    "subPathExpr",
    "subdomain",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "uid",
    "workingDir",
];

/// Drops from the object, at any depth, what Go would not write.
pub fn drop_zeros(object: &mut Value) {
    if let Value::Object(map) = object {
        drop_in_map(map);
    }
}

fn drop_in_map(map: &mut Map<String, Value>) {
    map.retain(|key, value| {
        if KEPT.contains(&key.as_str()) {
            descend(value);
            return true;
        }
        if MAPS.contains(&key.as_str()) && value.is_object() {
            return value.as_object().is_some_and(|map| !map.is_empty());
        }
        descend(value);
        !is_left_out(key, value)
    });
}

fn descend(value: &mut Value) {
    match value {
        Value::Object(map) => drop_in_map(map),
        Value::Array(items) => items.iter_mut().for_each(descend),
        _ => {}
    }
}

fn is_left_out(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && MAPS_IF_EMPTY.contains(&key),
        Value::Bool(false) => ZEROS.contains(&key) || key == "readOnly",
        Value::Number(number) => number.as_i64() == Some(0) && ZEROS.contains(&key),
        // `value: ""` is what an environment variable, a taint and a toleration leave out.
        Value::String(text) => text.is_empty() && (EMPTY_STRINGS.contains(&key) || key == "value"),
        Value::Bool(true) => false,
    }
}

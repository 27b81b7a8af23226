//! Node: a machine. Its spec is what people and controllers decide about it, its status what its agent reports.

use crate::error::FieldError;
use crate::kind::{Column, Context, Hooks, Kind, Nature, Subresource};
use crate::resources::checks::{Findings, entries, items, object_at, set_default, text};
use crate::resources::names;
use crate::resources::strategy::{keep_all_but_status, keep_status};
use crate::table::{AGE, NAME, age, column, name, or_none};
use serde_json::{Value, json};

pub static KIND: Kind = Kind {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    nature: Nature::Observed,
    subresources: &[Subresource::Status],
    schema: "io.k8s.api.core.v1.Node",
    columns: COLUMNS,
    selectable: &["spec.unschedulable"],
    hooks: Hooks {
        default,
        prepare_create,
        prepare_update,
        prepare_status,
        validate,
        validate_update,
        cells,
        field,
        ..Hooks::NONE
    },
    ..Kind::ROW
};

/// The taint that a node is born with: until its agent has said that it is ready, nothing goes there.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";

const ADDRESSES: &str = "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).";

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", 0, "The status of the node"),
    column("Roles", "string", 0, "The roles of the node"),
    AGE,
    column(
        "Version",
        "string",
        0,
        "Kubelet Version reported by the node.",
    ),
    column("Internal-IP", "string", 1, ADDRESSES),
    column("External-IP", "string", 1, ADDRESSES),
    column(
        "OS-Image",
        "string",
        1,
        "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
    ),
    column(
        "Kernel-Version",
        "string",
        1,
        "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
    ),
    column(
        "Container-Runtime",
        "string",
        1,
        "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
    ),
];

fn cells(object: &Value, now_ms: i64) -> Vec<Value> {
    let info = &object["status"]["nodeInfo"];
    let or_unknown = |key: &str| {
        json!(
            Some(text(&info[key]))
                .filter(|text| !text.is_empty())
                .unwrap_or("<unknown>")
        )
    };
    vec![
        name(object),
        json!(status(object)),
        or_none(&roles(object).join(",")),
        age(object, now_ms),
        json!(text(&info["kubeletVersion"])),
        or_none(address(object, "InternalIP")),
        or_none(address(object, "ExternalIP")),
        or_unknown("osImage"),
        or_unknown("kernelVersion"),
        or_unknown("containerRuntimeVersion"),
    ]
}

/// `Ready`, `NotReady,SchedulingDisabled` …
fn status(object: &Value) -> String {
    let ready = items(&object["status"]["conditions"])
        .iter()
        .find(|condition| condition["type"] == "Ready");
    let mut words = vec![match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if object["spec"]["unschedulable"] == true {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

/// A role is a label's name, or the value of an older label.
fn roles(object: &Value) -> Vec<String> {
    let mut roles: Vec<String> = entries(&object["metadata"]["labels"])
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role.to_owned()),
                None => (key == "kubernetes.io/role").then(|| text(value).to_owned()),
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort();
    roles.dedup();
    roles
}

fn address<'a>(object: &'a Value, type_: &str) -> &'a str {
    items(&object["status"]["addresses"])
        .iter()
        .find(|address| address["type"] == type_)
        .map_or("", |address| text(&address["address"]))
}

fn field(object: &Value, path: &str) -> Option<String> {
    (path == "spec.unschedulable").then(|| (object["spec"]["unschedulable"] == true).to_string())
}

fn default(object: &mut Value) {
    if let Some(spec) = object_at(object, "spec") {
        // The one and the many are the same thing said twice.
        if let Some(first) = spec
            .get("podCIDRs")
            .map(|all| all[0].clone())
            .filter(Value::is_string)
        {
            set_default(spec, "podCIDR", first);
        } else if let Some(one) = spec.get("podCIDR").cloned() {
            spec.insert("podCIDRs".to_owned(), json!([one]));
        }
    }
    let Some(status) = object_at(object, "status") else {
        return;
    };
    if let Some(capacity) = status.get("capacity").cloned() {
        set_default(status, "allocatable", capacity);
    }
}

/// Kubernetes: the admission plugin TaintNodesByCondition. An agent brings its status along, so that is kept.
fn prepare_create(object: &mut Value, _: &Context) {
    let Some(spec) = object_at(object, "spec") else {
        return;
    };
    let taints = spec.entry("taints").or_insert_with(|| json!([]));
    if let Some(taints) = taints.as_array_mut()
        && !taints
            .iter()
            .any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule")
    {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

fn prepare_update(old: &Value, new: &mut Value, _: &Context) {
    keep_status(old, new);
}

fn prepare_status(old: &Value, new: &mut Value, _: &Context) {
    keep_all_but_status(old, new);
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut found = Findings::new();
    validate_taints(&object["spec"]["taints"], &mut found);
    let subnets = items(&object["spec"]["podCIDRs"]);
    for (index, subnet) in subnets.iter().enumerate() {
        found.all(
            &format!("spec.podCIDRs[{index}]"),
            text(subnet),
            names::cidr(text(subnet)),
        );
    }
    if subnets.len() > 2 || (subnets.len() == 2 && is_ipv6(&subnets[0]) == is_ipv6(&subnets[1])) {
        found.invalid(
            "spec.podCIDRs",
            object["spec"]["podCIDRs"].clone(),
            "may specify no more than one CIDR for each IP family",
        );
    }
    for kind in ["capacity", "allocatable"] {
        for (name, quantity) in entries(&object["status"][kind]) {
            let negative = crate::quantity::Quantity::parse(text(quantity))
                .is_ok_and(|quantity| quantity.sign() < 0);
            if negative {
                found.invalid(
                    format!("status.{kind}.{name}"),
                    quantity.clone(),
                    crate::resources::checks::NOT_NEGATIVE,
                );
            }
        }
    }
    found.0
}

fn is_ipv6(subnet: &Value) -> bool {
    text(subnet).contains(':')
}

fn validate_taints(taints: &Value, found: &mut Findings) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, taint) in items(taints).iter().enumerate() {
        let path = format!("spec.taints[{index}]");
        let (key, effect) = (text(&taint["key"]), text(&taint["effect"]));
        found.all(&format!("{path}.key"), key, names::qualified_name(key));
        found.all(
            &format!("{path}.value"),
            text(&taint["value"]),
            names::label_value(text(&taint["value"])),
        );
        match effect {
            "" => found.required(format!("{path}.effect"), ""),
            "NoSchedule" | "PreferNoSchedule" | "NoExecute" => {}
            _ => found.not_supported(
                format!("{path}.effect"),
                effect,
                &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            ),
        }
        if seen.contains(&(key, effect)) {
            found.0.push(FieldError {
                path,
                kind: crate::error::FieldErrorKind::Duplicate,
                value: Some(taint.clone()),
                detail: "taints must be unique by key and effect pair".to_owned(),
            });
        }
        seen.push((key, effect));
    }
}

fn validate_update(old: &Value, new: &Value) -> Vec<FieldError> {
    let mut found = Findings::new();
    let (old_spec, new_spec) = (&old["spec"], &new["spec"]);
    // May be given once, and not taken back.
    if !old_spec["podCIDRs"].is_null() && old_spec["podCIDRs"] != new_spec["podCIDRs"] {
        found.forbidden(
            "spec.podCIDRs",
            "node updates may not change podCIDR except from \"\" to valid",
        );
    }
    if !old_spec["providerID"].is_null() && old_spec["providerID"] != new_spec["providerID"] {
        found.forbidden(
            "spec.providerID",
            "node updates may not change providerID except from \"\" to valid",
        );
    }
    found.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::recorded::{context, decoded, messages};
    use crate::resources::strategy;

    #[test]
    fn a_new_node_is_not_ready() {
        let node = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": false}, "status": {"capacity": {"cpu": "2"}}});
        let mut node = decoded(&KIND, node);
        strategy::create(&KIND, &mut node, &context()).unwrap();
        assert_eq!(
            node["spec"],
            json!({"taints": [{"key": NOT_READY, "effect": "NoSchedule"}]})
        );
        assert_eq!(node["status"]["allocatable"], json!({"cpu": "2"}));
        assert_eq!(
            node["status"]["daemonEndpoints"],
            json!({"kubeletEndpoint": {"Port": 0}})
        );
    }

    #[test]
    fn cells_say_status_and_roles() {
        let node = json!({
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1", "osImage": "D"},
                       "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
        });
        assert_eq!(
            json!(cells(&node, 0)),
            json!([
                "n",
                "Ready,SchedulingDisabled",
                "edge,worker",
                "<unknown>",
                "v1",
                "10.0.0.1",
                "<none>",
                "D",
                "<unknown>",
                "<unknown>"
            ])
        );
        assert_eq!(
            json!(cells(&json!({"metadata": {"name": "n"}}), 0)[1..3]),
            json!(["Unknown", "<none>"])
        );
    }

    #[test]
    fn validation() {
        let rows: &[(&str, Value, &[&str])] = &[
            (
                "taint",
                json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
                &[],
            ),
            (
                "effect",
                json!({"spec": {"taints": [{"key": "a", "effect": "Never"}]}}),
                &["spec.taints[0].effect supported values: \"NoSch"],
            ),
            (
                "twice",
                json!({"spec": {"taints": [{"key": "a", "effect": "NoExecute", "value": "1"}, {"key": "a", "effect": "NoExecute"}]}}),
                &["spec.taints[1] taints must be unique"],
            ),
            (
                "no subnet",
                json!({"spec": {"podCIDRs": ["10.0.0.0"]}}),
                &["spec.podCIDRs[0] must be a valid CIDR"],
            ),
            (
                "two of a family",
                json!({"spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}}),
                &["spec.podCIDRs may specify no more"],
            ),
            (
                "less than nothing",
                json!({"status": {"capacity": {"cpu": "-1"}}}),
                &["status.capacity.cpu must be greater"],
            ),
        ];
        for (what, node, expected) in rows {
            messages(what, validate(node), expected);
        }
        let update = validate_update(
            &json!({"spec": {"podCIDRs": ["10.0.0.0/24"]}}),
            &json!({"spec": {}}),
        );
        messages(
            "subnet taken away",
            update,
            &["spec.podCIDRs node updates may not change podCIDR"],
        );
    }
}

//! ReplicaSet: so many pods of one template. And what all kinds with a selector and a template share.

use crate::error::FieldError;
use crate::kind::{Column, Context, Hooks, Kind, Subresource};
use crate::resources::checks::{Findings, items, map_at, object_at, set_default, text};
use crate::resources::core::pod;
use crate::resources::strategy::{count_generation, keep_all_but_status, keep_status};
use crate::resources::{metadata, names};
use crate::selector::LabelSelector;
use crate::table::{AGE, NAME, age, column, containers_and_images, name, selector};
use serde_json::{Map, Value, json};

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[Subresource::Scale, Subresource::Status],
    schema: "io.k8s.api.apps.v1.ReplicaSet",
    columns: COLUMNS,
    selectable: &["status.replicas"],
    generation: true,
    hooks: Hooks {
        default,
        prepare_create,
        prepare_update,
        prepare_status,
        validate,
        validate_update,
        validate_status,
        warnings,
        cells,
        field,
        ..Hooks::NONE
    },
    ..Kind::ROW
};

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Desired",
        "integer",
        0,
        "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    column(
        "Current",
        "integer",
        0,
        "Replicas is the most recently observed number of non-terminating pods. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    column(
        "Ready",
        "integer",
        0,
        "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
    ),
    AGE,
    column(
        "Containers",
        "string",
        1,
        "Names of each container in the template.",
    ),
    column(
        "Images",
        "string",
        1,
        "Images referenced by each container in the template.",
    ),
    column(
        "Selector",
        "string",
        1,
        "Selector is a label query over pods that should match the replica count. Label keys and values that must match in order to be controlled by this replica set. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

fn cells(object: &Value, now_ms: i64) -> Vec<Value> {
    let count = |value: &Value| json!(value.as_i64().unwrap_or_default());
    let [containers, images] = containers_and_images(&object["spec"]["template"]);
    vec![
        name(object),
        count(&object["spec"]["replicas"]),
        count(&object["status"]["replicas"]),
        count(&object["status"]["readyReplicas"]),
        age(object, now_ms),
        containers,
        images,
        selector(&object["spec"]["selector"]),
    ]
}

fn field(object: &Value, path: &str) -> Option<String> {
    (path == "status.replicas").then(|| {
        object["status"]["replicas"]
            .as_i64()
            .unwrap_or_default()
            .to_string()
    })
}

fn default(object: &mut Value) {
    let Some(spec) = object_at(object, "spec") else {
        return;
    };
    default_replicas(spec);
    if let Some(template) = map_at(spec, "template") {
        pod::defaults::template(template);
    }
}

/// A workload that says no number means one.
pub fn default_replicas(spec: &mut Map<String, Value>) {
    set_default(spec, "replicas", 1);
}

fn prepare_create(object: &mut Value, _: &Context) {
    object["status"] = json!({"replicas": 0});
}

fn prepare_update(old: &Value, new: &mut Value, _: &Context) {
    keep_status(old, new);
    let changed = old["spec"] != new["spec"];
    count_generation(old, new, changed);
}

fn prepare_status(old: &Value, new: &mut Value, _: &Context) {
    keep_all_but_status(old, new);
}

fn validate(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut found = Findings::new();
    found.not_negative("spec.replicas", &spec["replicas"]);
    found.not_negative("spec.minReadySeconds", &spec["minReadySeconds"]);
    validate_selector(&spec["selector"], "replica set", &mut found);
    validate_template(spec, &mut found);
    found.0
}

/// The selector of a workload: it must be there, be well formed, and select something in particular.
pub fn validate_selector(selector: &Value, of: &str, found: &mut Findings) {
    if selector.is_null() {
        return found.required("spec.selector", "");
    }
    label_selector(selector, "spec.selector", found);
    let is_empty = ["matchLabels", "matchExpressions"]
        .iter()
        .all(|key| match &selector[*key] {
            Value::Object(map) => map.is_empty(),
            other => items(other).is_empty(),
        });
    if is_empty {
        found.invalid(
            "spec.selector",
            selector.clone(),
            format!("empty selector is invalid for {of}"),
        );
    }
}

/// A LabelSelector object, wherever one stands.
pub fn label_selector(selector: &Value, path: &str, found: &mut Findings) {
    metadata::validate_labels(
        &selector["matchLabels"],
        &format!("{path}.matchLabels"),
        found,
    );
    for (index, expression) in items(&selector["matchExpressions"]).iter().enumerate() {
        let at = format!("{path}.matchExpressions[{index}]");
        let values = items(&expression["values"]);
        match text(&expression["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                found.required(
                    format!("{at}.values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                found.forbidden(
                    format!("{at}.values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => found.invalid(
                format!("{at}.operator"),
                operator,
                "not a valid selector operator",
            ),
        }
        let key = text(&expression["key"]);
        found.all(&format!("{at}.key"), key, names::qualified_name(key));
        for (index, value) in values.iter().enumerate() {
            found.all(
                &format!("{at}.values[{index}]"),
                text(value),
                names::label_value(text(value)),
            );
        }
    }
}

/// The pod template of a workload whose pods run for ever: the selector must select them, and they are always restarted.
pub fn validate_template(spec: &Value, found: &mut Findings) {
    let template = &spec["template"];
    if template.is_null() {
        return found.required("spec.template", "");
    }
    let path = "spec.template";
    let is_empty = spec["selector"].as_object().is_some_and(Map::is_empty);
    // A selector that can't be read has been told of already, and an empty one selects what it must not.
    let selects = match LabelSelector::from_object(
        Some(&spec["selector"]).filter(|selector| !selector.is_null()),
    ) {
        Ok(selector) => is_empty || selector.matches(Some(&template["metadata"]["labels"])),
        Err(_) => true,
    };
    if !selects {
        found.invalid(
            format!("{path}.metadata.labels"),
            template["metadata"]["labels"].clone(),
            "`selector` does not match template `labels`",
        );
    }
    found.0.extend(pod::validation::template(template, path));
    let restart = text(&template["spec"]["restartPolicy"]);
    if restart != "Always" && !restart.is_empty() {
        found.not_supported(format!("{path}.spec.restartPolicy"), restart, &["Always"]);
    }
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        found.forbidden(
            format!("{path}.spec.activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

fn validate_update(old: &Value, new: &Value) -> Vec<FieldError> {
    let mut found = Findings::new();
    found.immutable(
        "spec.selector",
        &old["spec"]["selector"],
        &new["spec"]["selector"],
    );
    found.0
}

fn validate_status(_: &Value, new: &Value) -> Vec<FieldError> {
    let status = &new["status"];
    let count = |key: &str| status[key].as_i64().unwrap_or_default();
    let mut found = Findings::new();
    for key in [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
    ] {
        found.not_negative(format!("status.{key}"), &status[key]);
    }
    for (key, than) in [
        ("fullyLabeledReplicas", "replicas"),
        ("readyReplicas", "replicas"),
        ("availableReplicas", "replicas"),
        ("availableReplicas", "readyReplicas"),
    ] {
        if count(key) > count(than) {
            let than = if than == "replicas" {
                "status.replicas"
            } else {
                than
            };
            found.invalid(
                format!("status.{key}"),
                count(key),
                format!("cannot be greater than {than}"),
            );
        }
    }
    found.0
}

fn warnings(old: Option<&Value>, new: &Value) -> Vec<String> {
    pod::warnings::of_template(
        old.map(|old| &old["spec"]["template"]),
        &new["spec"]["template"],
        "spec.template",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::recorded::messages;

    #[test]
    fn selectors() {
        let rows: &[(&str, Value, &[&str])] = &[
            ("absent", json!(null), &["spec.selector "]),
            (
                "empty",
                json!({}),
                &["spec.selector empty selector is invalid for replica set"],
            ),
            ("labels", json!({"matchLabels": {"a": "b"}}), &[]),
            (
                "a bad value",
                json!({"matchLabels": {"a": "b c"}}),
                &["spec.selector.matchLabels a valid label must"],
            ),
            (
                "In nothing",
                json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
                &["spec.selector.matchExpressions[0].values must be"],
            ),
            (
                "Exists with values",
                json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
                &["spec.selector.matchExpressions[0].values may not be"],
            ),
            (
                "operator",
                json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}),
                &["spec.selector.matchExpressions[0].operator not a valid selector operator"],
            ),
        ];
        for (what, selector, expected) in rows {
            let mut found = Findings::new();
            validate_selector(selector, "replica set", &mut found);
            messages(what, found.0, expected);
        }
    }
}

//! Deployment: which template's pods there should be, and how to get from the last to this one.

use super::replicaset::{default_replicas, validate_selector, validate_template};
use crate::error::FieldError;
use crate::kind::{Column, Context, Hooks, Kind, Subresource};
use crate::resources::checks::{
    Findings, map_at, object_at, set_default, set_default_zero, take_from, text,
};
use crate::resources::core::pod;
use crate::resources::strategy::{count_generation, keep_all_but_status, keep_status};
use crate::table::{AGE, NAME, age, column, containers_and_images, name, selector};
use serde_json::{Value, json};

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[Subresource::Scale, Subresource::Status],
    schema: "io.k8s.api.apps.v1.Deployment",
    columns: COLUMNS,
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
        ..Hooks::NONE
    },
    ..Kind::ROW
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", 0, "Number of the pod with ready state"),
    column(
        "Up-to-date",
        "string",
        0,
        "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
    ),
    column(
        "Available",
        "string",
        0,
        "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
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
        "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by this deployment. It must match the pod template's labels.",
    ),
];

fn cells(object: &Value, now_ms: i64) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |value: &Value| value.as_i64().unwrap_or_default();
    let [containers, images] = containers_and_images(&spec["template"]);
    vec![
        name(object),
        json!(format!(
            "{}/{}",
            count(&status["readyReplicas"]),
            count(&spec["replicas"])
        )),
        json!(count(&status["updatedReplicas"])),
        json!(count(&status["availableReplicas"])),
        age(object, now_ms),
        containers,
        images,
        selector(&spec["selector"]),
    ]
}

fn default(object: &mut Value) {
    let Some(spec) = object_at(object, "spec") else {
        return;
    };
    default_replicas(spec);
    if let Some(strategy) = map_at(spec, "strategy") {
        set_default_zero(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = map_at(strategy, "rollingUpdate")
        {
            set_default(rolling, "maxUnavailable", "25%");
            set_default(rolling, "maxSurge", "25%");
        }
    }
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
    if let Some(template) = map_at(spec, "template") {
        pod::defaults::template(template);
    }
}

fn prepare_create(object: &mut Value, _: &Context) {
    object["status"] = json!({});
}

/// Annotations count too: a rollout's revision is one, and a controller must see that it changed.
fn prepare_update(old: &Value, new: &mut Value, _: &Context) {
    keep_status(old, new);
    let changed = old["spec"] != new["spec"]
        || old["metadata"]["annotations"] != new["metadata"]["annotations"];
    count_generation(old, new, changed);
}

fn prepare_status(old: &Value, new: &mut Value, _: &Context) {
    keep_all_but_status(old, new);
    if let Some(metadata) = new.get_mut("metadata") {
        take_from(&old["metadata"], metadata, "labels");
    }
}

fn validate(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut found = Findings::new();
    found.not_negative("spec.replicas", &spec["replicas"]);
    validate_selector(&spec["selector"], "deployment", &mut found);
    validate_template(spec, &mut found);
    validate_strategy(&spec["strategy"], &mut found);
    found.not_negative("spec.minReadySeconds", &spec["minReadySeconds"]);
    found.not_negative("spec.revisionHistoryLimit", &spec["revisionHistoryLimit"]);
    let deadline = &spec["progressDeadlineSeconds"];
    found.not_negative("spec.progressDeadlineSeconds", deadline);
    if deadline
        .as_i64()
        .is_some_and(|seconds| seconds <= spec["minReadySeconds"].as_i64().unwrap_or_default())
    {
        found.invalid(
            "spec.progressDeadlineSeconds",
            deadline.clone(),
            "must be greater than minReadySeconds",
        );
    }
    found.0
}

fn validate_strategy(strategy: &Value, found: &mut Findings) {
    let rolling = &strategy["rollingUpdate"];
    match text(&strategy["type"]) {
        "Recreate" => {
            if !rolling.is_null() {
                found.forbidden(
                    "spec.strategy.rollingUpdate",
                    "may not be specified when strategy `type` is 'Recreate'",
                );
            }
        }
        "RollingUpdate" => {
            let path = "spec.strategy.rollingUpdate";
            let unavailable = validate_share(
                &rolling["maxUnavailable"],
                &format!("{path}.maxUnavailable"),
                found,
            );
            let surge = validate_share(&rolling["maxSurge"], &format!("{path}.maxSurge"), found);
            if (unavailable, surge) == (Some(0), Some(0)) {
                found.invalid(
                    format!("{path}.maxUnavailable"),
                    rolling["maxUnavailable"].clone(),
                    "may not be 0 when `maxSurge` is 0",
                );
            }
            if rolling["maxUnavailable"].is_string()
                && unavailable.is_some_and(|percent| percent > 100)
            {
                found.invalid(
                    format!("{path}.maxUnavailable"),
                    rolling["maxUnavailable"].clone(),
                    "must not be greater than 100%",
                );
            }
        }
        other => found.not_supported("spec.strategy.type", other, &["Recreate", "RollingUpdate"]),
    }
}

/// A count or a percentage; its number, if it is one.
fn validate_share(value: &Value, path: &str, found: &mut Findings) -> Option<i64> {
    match value {
        Value::String(share) => {
            let digits = share.strip_suffix('%').filter(|digits| {
                !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
            });
            if digits.is_none() {
                found.invalid(
                    path,
                    share.as_str(),
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for \
                     validation is '[0-9]+%')",
                );
            }
            digits.and_then(|digits| digits.parse().ok())
        }
        number => {
            found.not_negative(path, number);
            number.as_i64()
        }
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

fn validate_status(old: &Value, new: &Value) -> Vec<FieldError> {
    let status = &new["status"];
    let count = |key: &str| status[key].as_i64().unwrap_or_default();
    let mut found = Findings::new();
    for key in [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
    ] {
        found.not_negative(format!("status.{key}"), &status[key]);
    }
    for (key, than) in [
        ("updatedReplicas", "replicas"),
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
    let collisions = |object: &Value| object["status"]["collisionCount"].as_i64();
    if collisions(old).is_some()
        && collisions(new).unwrap_or_default() < collisions(old).unwrap_or_default()
    {
        found.invalid(
            "status.collisionCount",
            status["collisionCount"].clone(),
            "cannot be decremented",
        );
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
    use crate::resources::recorded::{context, decoded, messages};
    use crate::resources::strategy;

    fn deployment(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "d", "namespace": "n"}, "spec": {
            "selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        decoded(&KIND, object)
    }

    #[test]
    fn validation() {
        let rows: &[(&str, Value, &[&str])] = &[
            ("plain", json!({}), &[]),
            (
                "other labels",
                json!({"selector": {"matchLabels": {"a": "b"}}}),
                &["spec.template.metadata.labels `selector` does not match"],
            ),
            (
                "no selector",
                json!({"selector": null}),
                &[
                    "spec.selector ",
                    "spec.template.metadata.labels `selector` does not",
                ],
            ),
            (
                "empty selector",
                json!({"selector": {}}),
                &["spec.selector empty selector is invalid for deployment"],
            ),
            (
                "negative",
                json!({"replicas": -1}),
                &["spec.replicas must be greater than or equal to 0"],
            ),
            (
                "stuck",
                json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}),
                &["spec.strategy.rollingUpdate.maxUnavailable may not be 0 when"],
            ),
            (
                "both",
                json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
                &["spec.strategy.rollingUpdate may not be specified"],
            ),
            (
                "lots",
                json!({"strategy": {"rollingUpdate": {"maxSurge": "lots"}}}),
                &["spec.strategy.rollingUpdate.maxSurge a valid percent string must"],
            ),
            (
                "too much",
                json!({"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}),
                &["spec.strategy.rollingUpdate.maxUnavailable must not be greater"],
            ),
            (
                "strategy",
                json!({"strategy": {"type": "Fast"}}),
                &["spec.strategy.type supported values: \"Recreate\", \"RollingUpdate\""],
            ),
            (
                "deadline",
                json!({"minReadySeconds": 10, "progressDeadlineSeconds": 10}),
                &["spec.progressDeadlineSeconds must be greater"],
            ),
        ];
        for (what, spec, expected) in rows {
            messages(what, validate(&deployment(spec.clone())), expected);
        }
    }

    #[test]
    fn generation_counts_spec_and_annotations() {
        let mut old = deployment(json!({}));
        strategy::create(&KIND, &mut old, &context()).unwrap();
        type Change = fn(&mut Value);
        let rows: &[(&str, Change, i64)] = &[
            ("nothing", |_| {}, 1),
            (
                "labels",
                |new| new["metadata"]["labels"] = json!({"a": "b"}),
                1,
            ),
            (
                "annotations",
                |new| new["metadata"]["annotations"] = json!({"a": "b"}),
                2,
            ),
            ("spec", |new| new["spec"]["paused"] = json!(true), 2),
            ("status", |new| new["status"]["replicas"] = json!(3), 1),
            (
                "generation itself",
                |new| new["metadata"]["generation"] = json!(50),
                1,
            ),
        ];
        for (what, change, generation) in rows {
            let mut new = old.clone();
            change(&mut new);
            strategy::update(&KIND, &old, &mut new, &context()).unwrap();
            assert_eq!(new["metadata"]["generation"], *generation, "{what}");
            assert_eq!(new["status"], old["status"], "{what}");
        }
        let mut new = old.clone();
        new["status"] = json!({"replicas": 1, "updatedReplicas": 1});
        new["spec"]["paused"] = json!(true);
        new["metadata"]["labels"] = json!({"a": "b"});
        strategy::update_status(&KIND, &old, &mut new, &context()).unwrap();
        assert_eq!(
            (&new["spec"], &new["status"]["replicas"]),
            (&old["spec"], &json!(1))
        );
        assert_eq!(new["metadata"], old["metadata"]);
    }

    #[test]
    fn what_may_not_change() {
        let old = deployment(json!({}));
        let mut new = old.clone();
        new["spec"]["selector"] = json!({"matchLabels": {"app": "e"}});
        messages(
            "selector",
            validate_update(&old, &new),
            &["spec.selector field is immutable"],
        );
        new["status"] = json!({"replicas": 1, "readyReplicas": 2});
        messages(
            "status",
            validate_status(&old, &new),
            &["status.readyReplicas cannot be greater than status.replicas"],
        );
    }

    #[test]
    fn strategies_are_filled_in() {
        let rows = [
            (
                json!({}),
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}),
            ),
            (
                json!({"strategy": {"type": "Recreate"}}),
                json!({"type": "Recreate"}),
            ),
            (
                json!({"strategy": {"rollingUpdate": {"maxSurge": 1}}}),
                json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}, "type": "RollingUpdate"}),
            ),
        ];
        for (given, expected) in rows {
            assert_eq!(deployment(given)["spec"]["strategy"], expected);
        }
    }
}

//! `autoscaling/v1` Scale: the one number of a workload, for those who need not know its kind.

use crate::error::FieldError;
use crate::resources::checks::{Findings, object_at};
use crate::table::selector;
use serde_json::{Map, Value, json};

/// The Scale of an object with `spec.replicas` and `spec.selector`.
pub fn of(object: &Value) -> Value {
    let mut metadata = Map::new();
    for key in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = object["metadata"].get(key) {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    let mut spec = Map::new();
    if let Some(replicas) = object["spec"]["replicas"]
        .as_i64()
        .filter(|replicas| *replicas != 0)
    {
        spec.insert("replicas".to_owned(), json!(replicas));
    }
    let mut status = json!({"replicas": object["status"]["replicas"].as_i64().unwrap_or_default()});
    let words = selector(&object["spec"]["selector"]);
    if words != "<none>" {
        status["selector"] = words;
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// What is wrong with a Scale that a client sends.
pub fn validate(scale: &Value) -> Vec<FieldError> {
    let mut found = Findings::new();
    found.not_negative("spec.replicas", &scale["spec"]["replicas"]);
    found.0
}

/// The object with the Scale's number: what is then updated through the object's own strategy. A Scale without a number means 0.
pub fn apply(scale: &Value, object: &mut Value) {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or_default();
    if let Some(spec) = object_at(object, "spec") {
        spec.insert("replicas".to_owned(), json!(replicas));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let mut object = json!({"metadata": {"name": "d", "labels": {"a": "b"}}, "status": {"replicas": 3},
                                "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "d"}}}});
        let scale = of(&object);
        assert_eq!(scale["metadata"], json!({"name": "d"}));
        assert_eq!(
            (&scale["spec"], &scale["status"]),
            (
                &json!({"replicas": 2}),
                &json!({"replicas": 3, "selector": "app=d"})
            )
        );
        apply(&json!({"spec": {}}), &mut object);
        assert_eq!(of(&object)["spec"], json!({}));
        assert_eq!(
            validate(&json!({"spec": {"replicas": -3}}))[0].path,
            "spec.replicas"
        );
        assert!(validate(&json!({"spec": {}})).is_empty());
    }
}

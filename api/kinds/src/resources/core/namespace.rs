//! Namespace: what names are unique in. Its deletion is held by `spec.finalizers` until nothing is left in it.

use crate::error::FieldError;
use crate::kind::{Column, Context, Hooks, Kind, NameRule, Subresource};
use crate::resources::checks::{Findings, items, map_at, object_at, set_default_zero, text};
use crate::resources::names;
use crate::resources::strategy::{keep_all_but, keep_all_but_status, keep_status};
use crate::table::{AGE, NAME, age, column, name};
use serde_json::{Value, json};

pub static KIND: Kind = Kind {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    verbs: &[
        "create", "delete", "get", "list", "patch", "update", "watch",
    ],
    subresources: &[Subresource::Finalize, Subresource::Status],
    schema: "io.k8s.api.core.v1.Namespace",
    name_rule: NameRule::Label,
    columns: COLUMNS,
    selectable: &["status.phase", "name"],
    hooks: Hooks {
        default,
        prepare_create,
        prepare_update,
        prepare_status,
        validate,
        validate_status,
        cells,
        begin_delete: terminate,
        field,
        ..Hooks::NONE
    },
    ..Kind::ROW
};

/// The finalizer that says: contents first.
pub const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", 0, "The status of the namespace"),
    AGE,
];

fn cells(object: &Value, now_ms: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(&object["status"]["phase"])),
        age(object, now_ms),
    ]
}

fn field(object: &Value, path: &str) -> Option<String> {
    match path {
        "status.phase" => Some(text(&object["status"]["phase"]).to_owned()),
        // An old synonym that Kubernetes keeps.
        "name" => Some(text(&object["metadata"]["name"]).to_owned()),
        _ => None,
    }
}

fn default(object: &mut Value) {
    label_with_name(object);
    if let Some(status) = object_at(object, "status") {
        set_default_zero(status, "phase", "Active");
    }
}

/// A selector can name a namespace by this label, so it always tells the truth.
fn label_with_name(object: &mut Value) {
    let name = text(&object["metadata"]["name"]).to_owned();
    if let Some(metadata) = object_at(object, "metadata")
        && !name.is_empty()
        && let Some(labels) = map_at(metadata, "labels")
    {
        labels.insert(NAME_LABEL.to_owned(), json!(name));
    }
}

fn prepare_create(object: &mut Value, _: &Context) {
    // The name may just have been generated.
    label_with_name(object);
    object["status"] = json!({"phase": "Active"});
    let Some(spec) = object_at(object, "spec") else {
        return;
    };
    let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
    if let Some(finalizers) = finalizers.as_array_mut()
        && !finalizers.iter().any(|finalizer| finalizer == FINALIZER)
    {
        finalizers.push(json!(FINALIZER));
    }
}

fn prepare_update(old: &Value, new: &mut Value, _: &Context) {
    keep_status(old, new);
    let finalizers = old["spec"]["finalizers"].clone();
    if let Some(spec) = object_at(new, "spec") {
        match finalizers {
            Value::Null => spec.shift_remove("finalizers"),
            finalizers => spec.insert("finalizers".to_owned(), finalizers),
        };
    }
}

fn prepare_status(old: &Value, new: &mut Value, _: &Context) {
    keep_all_but_status(old, new);
}

/// PUT of `…/finalize`: the finalizers alone.
pub fn prepare_finalize(old: &Value, new: &mut Value) {
    keep_all_but(old, new, &["apiVersion", "kind", "metadata", "spec"]);
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut found = Findings::new();
    for (index, finalizer) in items(&object["spec"]["finalizers"]).iter().enumerate() {
        let name = text(finalizer);
        found.all(
            &format!("spec.finalizers[{index}]"),
            name,
            names::qualified_name(name),
        );
        if !name.contains('/') && name != FINALIZER && name != "orphan" {
            found.invalid(
                format!("spec.finalizers[{index}]"),
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
    found.0
}

/// The phase follows from whether a deletion has begun.
fn validate_status(_: &Value, new: &Value) -> Vec<FieldError> {
    let mut found = Findings::new();
    let (expected, when) = if new["metadata"]["deletionTimestamp"].is_null() {
        ("Active", "`deletionTimestamp` is empty")
    } else {
        ("Terminating", "`deletionTimestamp` is not empty")
    };
    if new["status"]["phase"] != expected {
        found.invalid(
            "status.phase",
            new["status"]["phase"].clone(),
            format!("may only be '{expected}' if {when}"),
        );
    }
    found.0
}

fn terminate(object: &mut Value) {
    if let Some(status) = object_at(object, "status") {
        status.insert("phase".to_owned(), json!("Terminating"));
    }
}

/// Whether nothing holds the deletion any more: neither kind of finalizer is left.
pub fn is_finalized(object: &Value) -> bool {
    items(&object["spec"]["finalizers"]).is_empty()
        && items(&object["metadata"]["finalizers"]).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::recorded::{context, decoded, messages};
    use crate::resources::strategy;

    #[test]
    fn life() {
        let mut object = decoded(
            &KIND,
            json!({"metadata": {"name": "a"}, "status": {"phase": "Gone"}}),
        );
        strategy::create(&KIND, &mut object, &context()).unwrap();
        assert_eq!(
            object,
            json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
                   "status": {"phase": "Active"}, "spec": {"finalizers": ["kubernetes"]}})
        );
        let mut renamed = object.clone();
        renamed["metadata"]["labels"][NAME_LABEL] = json!("b");
        renamed["spec"]["finalizers"] = json!([]);
        let mut renamed = decoded(&KIND, renamed);
        strategy::update(&KIND, &object, &mut renamed, &context()).unwrap();
        assert_eq!(renamed, object);
        strategy::begin_delete(&KIND, &mut renamed);
        assert_eq!(renamed["status"]["phase"], "Terminating");
        assert!(!is_finalized(&renamed));
    }

    #[test]
    fn generated_names_are_labelled() {
        let mut object = decoded(&KIND, json!({"metadata": {"generateName": "a-"}}));
        strategy::create(&KIND, &mut object, &context()).unwrap();
        assert_eq!(object["metadata"]["labels"][NAME_LABEL], "a-x7k2m");
    }

    #[test]
    fn phase_follows_deletion() {
        let rows: &[(&str, Value, &[&str])] = &[
            ("active", json!({"status": {"phase": "Active"}}), &[]),
            (
                "too early",
                json!({"status": {"phase": "Terminating"}}),
                &["status.phase may only be 'Active' if"],
            ),
            (
                "too late",
                json!({"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Active"}}),
                &["status.phase may only be 'Term"],
            ),
        ];
        for (what, object, expected) in rows {
            messages(what, validate_status(&Value::Null, object), expected);
        }
    }
}

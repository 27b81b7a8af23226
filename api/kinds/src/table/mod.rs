//! What `kubectl get` prints: the server makes the cells (`meta.k8s.io/v1` Table), the client only aligns them.
//! A kind's columns and cells are in its row; here is what all tables share, and the other short form, PartialObjectMetadata.
//! Cells must be like those of Kubernetes' own printers to the letter: scripts cut them with awk.

pub mod age;

use crate::error::StatusError;
use crate::kind::{Column, Kind};
use crate::resources::checks::{entries, items};
use crate::selector::LabelSelector;
use serde_json::{Map, Value, json};

/// How much of an object rides along in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// The value of the query's `includeObject`; `""` if there is none.
    pub fn parse(word: &str) -> Result<Self, StatusError> {
        match word {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            _ => Err(StatusError {
                code: 400,
                reason: "BadRequest",
                message: format!(
                    "Unable to convert to Table as requested: includeObject: Invalid value: {word:?}: must be 'Metadata', 'Object', 'None', or empty"
                ),
                details: Value::Null,
            }),
        }
    }
}

/// A table of these objects. `metadata` is the list's (`resourceVersion`, `continue` …), or for a single object what
/// `single_metadata` makes. A watch sends the columns with its first event alone: `with_columns`.
pub fn table<'a>(
    kind: &Kind,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: Value,
    include: IncludeObject,
    with_columns: bool,
    now_ms: i64,
) -> Value {
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| row(kind, object, include, now_ms))
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": if with_columns { columns(kind) } else { Value::Null },
        "rows": rows,
    })
}

/// The Table's metadata for one object.
pub fn single_metadata(object: &Value) -> Value {
    let mut metadata = Map::new();
    if let Some(version) = object["metadata"].get("resourceVersion") {
        metadata.insert("resourceVersion".to_owned(), version.clone());
    }
    Value::Object(metadata)
}

/// An object without all but its metadata.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

pub fn partial_list<'a>(objects: impl IntoIterator<Item = &'a Value>, metadata: Value) -> Value {
    let items: Vec<Value> = objects.into_iter().map(partial).collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
}

fn columns(kind: &Kind) -> Value {
    kind.columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.type_,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        })
        .collect()
}

fn row(kind: &Kind, object: &Value, include: IncludeObject, now_ms: i64) -> Value {
    let shown = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => partial(object),
        IncludeObject::Object => {
            let mut whole = object.clone();
            if let Some(map) = whole.as_object_mut() {
                map.insert("kind".to_owned(), json!(kind.kind));
                map.insert("apiVersion".to_owned(), json!(kind.api_version()));
            }
            whole
        }
    };
    json!({"cells": (kind.hooks.cells)(object, now_ms), "object": shown})
}

pub const fn column(
    name: &'static str,
    type_: &'static str,
    priority: i32,
    description: &'static str,
) -> Column {
    Column {
        name,
        type_,
        format: "",
        description,
        priority,
    }
}

pub const NAME: Column = Column {
    name: "Name",
    type_: "string",
    format: "name",
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    priority: 0,
};

pub const AGE: Column = column(
    "Age",
    "string",
    0,
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
);

/// For a kind of which there is nothing more to say.
pub const NAME_AND_AGE: &[Column] = &[NAME, AGE];

pub fn name_and_age(object: &Value, now_ms: i64) -> Vec<Value> {
    vec![name(object), age(object, now_ms)]
}

pub fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

pub fn age(object: &Value, now_ms: i64) -> Value {
    json!(age::since(&object["metadata"]["creationTimestamp"], now_ms))
}

/// A text, or `<none>` for an empty one.
pub fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

/// `a=1,b=2`, sorted; `<none>` if there are none.
pub fn labels(map: &Value) -> Value {
    let mut pairs: Vec<String> = entries(map)
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    or_none(&pairs.join(","))
}

/// A LabelSelector as `kubectl` writes one: `app=web,tier in (a,b),!old`.
pub fn selector(selector: &Value) -> Value {
    match LabelSelector::from_object(Some(selector)) {
        Ok(selector) => or_none(&selector.to_string()),
        Err(_) => json!("<error>"),
    }
}

/// The names and the images of a pod template's containers, each joined by commas.
pub fn containers_and_images(template: &Value) -> [Value; 2] {
    let join = |key: &str| {
        let words: Vec<&str> = items(&template["spec"]["containers"])
            .iter()
            .filter_map(|container| container[key].as_str())
            .collect();
        json!(words.join(","))
    };
    [join("name"), join("image")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_read_as_kubectl_writes_them() {
        let rows = [
            (json!(null), "<none>"),
            (json!({}), "<none>"),
            (json!({"matchLabels": {"b": "2", "a": "1"}}), "a=1,b=2"),
            (
                json!({"matchLabels": {"m": "1"}, "matchExpressions": [
                    {"key": "t", "operator": "In", "values": ["y", "x"]},
                    {"key": "e", "operator": "Exists"},
                    {"key": "n", "operator": "DoesNotExist"},
                    {"key": "o", "operator": "NotIn", "values": ["z"]}]}),
                "e,m=1,!n,o notin (z),t in (x,y)",
            ),
            (
                json!({"matchExpressions": [{"key": "t", "operator": "Near"}]}),
                "<error>",
            ),
        ];
        for (given, expected) in rows {
            assert_eq!(selector(&given), expected, "{given}");
        }
    }

    #[test]
    fn rows_carry_as_much_of_the_object_as_asked() {
        let kind = crate::resources::by_resource("configmaps").unwrap();
        let object = json!({"metadata": {"name": "a", "resourceVersion": "7"}, "data": {"k": "v"}});
        let rows = [
            ("None", Value::Null),
            (
                "",
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]}),
            ),
            (
                "Object",
                json!({"metadata": object["metadata"], "data": {"k": "v"}, "kind": "ConfigMap", "apiVersion": "v1"}),
            ),
        ];
        for (word, expected) in rows {
            let include = IncludeObject::parse(word).unwrap();
            let table = table(kind, [&object], single_metadata(&object), include, false, 0);
            assert_eq!(
                table["rows"][0],
                json!({"cells": ["a", 1, "<unknown>"], "object": expected}),
                "{word:?}"
            );
            assert_eq!(
                (&table["metadata"], &table["columnDefinitions"]),
                (&json!({"resourceVersion": "7"}), &Value::Null)
            );
        }
        assert_eq!(IncludeObject::parse("Everything").unwrap_err().code, 400);
    }
}

//! A body travels cut at its stamps: what apply adds goes between `head` and `tail`, so that apply concatenates and never parses.
//!
//! Worked example. The object
//! `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"b","uid":"…","resourceVersion":"7","creationTimestamp":"…","labels":{}},"data":{}}`
//! has the head `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"b"` and the tail `,"labels":{}},"data":{}}`.
//! A body without kind and apiVersion (a claim's) begins with `{"metadata":{`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An object's canonical JSON without its stamps, cut where they go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    pub head: Bytes,
    pub tail: Bytes,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BodyError {
    #[error("an object must be a JSON map")]
    NotAMap,
    #[error("metadata must be a JSON map")]
    NoMetadata,
    #[error("metadata.name must be a non-empty string")]
    NoName,
}

/// What apply stamps, and so what a body never holds.
pub const STAMPED: [&str; 5] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

impl Body {
    /// Cuts an object. Stamps in it are dropped; kind, apiVersion and metadata come first, name and namespace first in metadata;
    /// otherwise the order of fields is kept. Fields of metadata that are null, and maps and lists in it that are empty, are dropped.
    pub fn cut(object: &Value) -> Result<Self, BodyError> {
        let object = object.as_object().ok_or(BodyError::NotAMap)?;
        let metadata = object
            .get("metadata")
            .and_then(Value::as_object)
            .ok_or(BodyError::NoMetadata)?;
        if metadata
            .get("name")
            .and_then(Value::as_str)
            .is_none_or(str::is_empty)
        {
            return Err(BodyError::NoName);
        }
        let mut head = Vec::with_capacity(160);
        head.push(b'{');
        for field in ["kind", "apiVersion"] {
            if let Some(value) = object.get(field) {
                write_field(&mut head, field, value);
                head.push(b',');
            }
        }
        head.extend_from_slice(b"\"metadata\":{");
        let mut first = true;
        for field in ["name", "generateName", "namespace"] {
            if let Some(value) = metadata
                .get(field)
                .filter(|value| value.as_str().is_some_and(|text| !text.is_empty()))
            {
                if !first {
                    head.push(b',');
                }
                first = false;
                write_field(&mut head, field, value);
            }
        }
        let mut tail = Vec::with_capacity(1024);
        for (field, value) in metadata {
            let named = matches!(field.as_str(), "name" | "generateName" | "namespace");
            if named || STAMPED.contains(&field.as_str()) || is_nothing(value) {
                continue;
            }
            tail.push(b',');
            write_field(&mut tail, field, value);
        }
        tail.push(b'}');
        for (field, value) in object {
            if matches!(field.as_str(), "kind" | "apiVersion" | "metadata") {
                continue;
            }
            tail.push(b',');
            write_field(&mut tail, field, value);
        }
        tail.push(b'}');
        Ok(Self {
            head: head.into(),
            tail: tail.into(),
        })
    }

    /// A body for a key that has no object behind it: a claim. `fields` go beside metadata.
    pub fn of_claim(name: &str, fields: &Map<String, Value>) -> Self {
        let mut object = Map::new();
        object.insert("metadata".into(), serde_json::json!({ "name": name }));
        object.extend(fields.clone());
        Self::cut(&Value::Object(object)).unwrap_or(Self {
            head: Bytes::new(),
            tail: Bytes::new(),
        })
    }

    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.tail.is_empty()
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn write_field(out: &mut Vec<u8>, field: &str, value: &Value) {
    // Writing a Value into memory cannot fail: its map keys are strings.
    let written = serde_json::to_writer(&mut *out, field).and_then(|()| {
        out.push(b':');
        serde_json::to_writer(&mut *out, value)
    });
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cuts() {
        for (object, head, tail) in [
            (
                json!({"metadata": {"labels": {"x": "y"}, "uid": "u", "annotations": {}, "namespace": "b", "name": "a", "resourceVersion": "7"}, "kind": "ConfigMap", "apiVersion": "v1", "data": {}}),
                r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"b""#,
                r#","labels":{"x":"y"}},"data":{}}"#,
            ),
            (
                json!({"metadata": {"name": "a"}}),
                r#"{"metadata":{"name":"a""#,
                "}}",
            ),
        ] {
            let body = Body::cut(&object).unwrap();
            assert_eq!(
                (
                    std::str::from_utf8(&body.head).unwrap(),
                    std::str::from_utf8(&body.tail).unwrap()
                ),
                (head, tail)
            );
        }
        assert_eq!(Body::cut(&json!([])), Err(BodyError::NotAMap));
        assert_eq!(
            Body::cut(&json!({"metadata": null})),
            Err(BodyError::NoMetadata)
        );
        assert_eq!(
            Body::cut(&json!({"metadata": {"name": ""}})),
            Err(BodyError::NoName)
        );
    }
}

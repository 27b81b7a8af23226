//! ConfigMap: texts and bytes by key.

use crate::error::FieldError;
use crate::kind::{Column, Hooks, Kind};
use crate::resources::checks::{Findings, entries, text};
use crate::resources::names;
use crate::table::{AGE, NAME, age, column, name};
use serde_json::{Value, json};

pub static KIND: Kind = Kind {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    schema: "io.k8s.api.core.v1.ConfigMap",
    columns: COLUMNS,
    hooks: Hooks {
        validate,
        validate_update,
        cells,
        ..Hooks::NONE
    },
    ..Kind::ROW
};

/// Of all values together, for ConfigMaps and Secrets alike.
pub const DATA_MAX_BYTES: usize = 1 << 20;

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Data",
        "string",
        0,
        "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
    ),
    AGE,
];

fn cells(object: &Value, now_ms: i64) -> Vec<Value> {
    let count = entries(&object["data"]).count() + entries(&object["binaryData"]).count();
    vec![name(object), json!(count), age(object, now_ms)]
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut found = Findings::new();
    let mut bytes = 0;
    for (key, value) in entries(&object["data"]) {
        found.all(&format!("data[{key}]"), key, names::config_key(key));
        if object["binaryData"].get(key).is_some() {
            found.invalid(
                format!("data[{key}]"),
                key.as_str(),
                "duplicate of key present in binaryData",
            );
        }
        bytes += text(value).len();
    }
    for (key, value) in entries(&object["binaryData"]) {
        found.all(&format!("binaryData[{key}]"), key, names::config_key(key));
        bytes += decoded_len(text(value));
    }
    if bytes > DATA_MAX_BYTES {
        found.too_long("[]", DATA_MAX_BYTES);
    }
    found.0
}

fn validate_update(old: &Value, new: &Value) -> Vec<FieldError> {
    immutable_once_set(old, new, &["data", "binaryData"])
}

/// ConfigMaps and Secrets may be sealed against change for good.
pub fn immutable_once_set(old: &Value, new: &Value, fields: &[&str]) -> Vec<FieldError> {
    let mut found = Findings::new();
    if old["immutable"] == true {
        const SEALED: &str = "field is immutable when `immutable` is set";
        if new["immutable"] != true {
            found.forbidden("immutable", SEALED);
        }
        for field in fields {
            if old[*field] != new[*field] {
                found.forbidden(*field, SEALED);
            }
        }
    }
    found.0
}

/// How many bytes a base64 text stands for.
pub fn decoded_len(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::recorded::messages;

    #[test]
    fn validation() {
        let rows: &[(&str, Value, &[&str])] = &[
            (
                "plain",
                json!({"data": {"a.b": "1"}, "binaryData": {"c": "AAEC"}}),
                &[],
            ),
            (
                "slash in a key",
                json!({"data": {"a/b": "1"}}),
                &["data[a/b] a valid config key must"],
            ),
            (
                "a key in both",
                json!({"data": {"a": "1"}, "binaryData": {"a": "AA=="}}),
                &["data[a] duplicate of key"],
            ),
            (
                "too large",
                json!({"data": {"a": "x".repeat(DATA_MAX_BYTES + 1)}}),
                &["[] may not be more than 1048576 bytes"],
            ),
            (
                "just fits",
                json!({"data": {"a": "x".repeat(DATA_MAX_BYTES)}}),
                &[],
            ),
        ];
        for (what, object, expected) in rows {
            messages(what, validate(object), expected);
        }
    }

    #[test]
    fn sealed_means_sealed() {
        let sealed = json!({"data": {"a": "1"}, "immutable": true});
        let rows: &[(&str, Value, &[&str])] = &[
            (
                "labels alone",
                json!({"metadata": {"labels": {"a": "b"}}, "data": {"a": "1"}, "immutable": true}),
                &[],
            ),
            (
                "data",
                json!({"data": {"a": "2"}, "immutable": true}),
                &["data field is immutable when"],
            ),
            (
                "the seal",
                json!({"data": {"a": "1"}}),
                &["immutable field is immutable when"],
            ),
        ];
        for (what, new, expected) in rows {
            messages(what, validate_update(&sealed, new), expected);
        }
        messages(
            "never sealed",
            validate_update(&json!({"data": {"a": "1"}}), &json!({})),
            &[],
        );
    }
}

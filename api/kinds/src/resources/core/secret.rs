//! Secret: bytes by key, with a type that says which keys there must be.

use super::configmap::{DATA_MAX_BYTES, decoded_len, immutable_once_set};
use crate::error::FieldError;
use crate::kind::{Column, Hooks, Kind};
use crate::resources::checks::{Findings, entries, map_at, set_default_zero, text};
use crate::resources::names;
use crate::table::{AGE, NAME, age, column, name};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

pub static KIND: Kind = Kind {
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    schema: "io.k8s.api.core.v1.Secret",
    columns: COLUMNS,
    selectable: &["type"],
    hooks: Hooks {
        default,
        prepare_update,
        validate,
        validate_update,
        cells,
        field,
        ..Hooks::NONE
    },
    ..Kind::ROW
};

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Type",
        "string",
        0,
        "Used to facilitate programmatic handling of secret data. More info: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
    ),
    column(
        "Data",
        "string",
        0,
        "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
    ),
    AGE,
];

/// Names the ServiceAccount that a token is of.
const ACCOUNT: &str = "kubernetes.io/service-account.name";
/// A Secret's bytes never stand in a message.
const REDACTED: &str = "<secret contents redacted>";

fn cells(object: &Value, now_ms: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(&object["type"])),
        json!(entries(&object["data"]).count()),
        age(object, now_ms),
    ]
}

fn field(object: &Value, path: &str) -> Option<String> {
    (path == "type").then(|| text(&object["type"]).to_owned())
}

/// `stringData` is written only: it goes into `data`, over what is there.
fn default(object: &mut Value) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    if let Some(Value::Object(texts)) = map.shift_remove("stringData")
        && let Some(data) = map_at(map, "data")
    {
        for (key, value) in texts {
            data.insert(key, json!(STANDARD.encode(text(&value))));
        }
    }
    set_default_zero(map, "type", "Opaque");
}

/// An update that names no type keeps it (`kubectl replace` of an old manifest).
fn prepare_update(old: &Value, new: &mut Value, _: &crate::kind::Context) {
    if let Some(map) = new.as_object_mut() {
        set_default_zero(map, "type", old["type"].clone());
    }
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut found = Findings::new();
    let data = &object["data"];
    let mut bytes = 0;
    for (key, value) in entries(data) {
        found.all(&format!("data[{key}]"), key, names::config_key(key));
        bytes += decoded_len(text(value));
    }
    if bytes > DATA_MAX_BYTES {
        found.too_long("data", DATA_MAX_BYTES);
    }
    let mut require = |key: &str| {
        if data.get(key).is_none() {
            found.required(format!("data[{key}]"), "");
        }
    };
    let account = &object["metadata"]["annotations"][ACCOUNT];
    match text(&object["type"]) {
        "kubernetes.io/service-account-token" if text(account).is_empty() => {
            found.required(format!("metadata.annotations[{ACCOUNT}]"), "");
        }
        "kubernetes.io/dockercfg" => validate_json(data, ".dockercfg", &mut found),
        "kubernetes.io/dockerconfigjson" => validate_json(data, ".dockerconfigjson", &mut found),
        // One of the two will do.
        "kubernetes.io/basic-auth" if data["username"].is_null() && data["password"].is_null() => {
            require("username");
            require("password");
        }
        "kubernetes.io/ssh-auth" if text(&data["ssh-privatekey"]).is_empty() => {
            found.required("data[ssh-privatekey]", "");
        }
        "kubernetes.io/tls" => {
            require("tls.crt");
            require("tls.key");
        }
        _ => {}
    }
    found.0
}

fn validate_json(data: &Value, key: &str, found: &mut Findings) {
    let path = format!("data[{key}]");
    let Some(value) = data.get(key) else {
        return found.required(path, "");
    };
    let bytes = STANDARD.decode(text(value)).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        found.invalid(path, REDACTED, error.to_string());
    }
}

fn validate_update(old: &Value, new: &Value) -> Vec<FieldError> {
    let mut found = Findings::new();
    found.immutable("type", &old["type"], &new["type"]);
    found.0.extend(immutable_once_set(old, new, &["data"]));
    found.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::recorded::messages;

    #[test]
    fn texts_become_data() {
        let rows = [
            (
                json!({"stringData": {"user": "ann"}}),
                json!({"data": {"user": "YW5u"}, "type": "Opaque"}),
            ),
            (
                json!({"data": {"user": "eA=="}, "stringData": {"user": "ann"}}),
                json!({"data": {"user": "YW5u"}, "type": "Opaque"}),
            ),
            (json!({}), json!({"type": "Opaque"})),
            (json!({"type": "a/b"}), json!({"type": "a/b"})),
        ];
        for (mut given, expected) in rows {
            default(&mut given);
            assert_eq!(given, expected);
        }
    }

    #[test]
    fn validation() {
        let rows: &[(&str, Value, &[&str])] = &[
            (
                "opaque",
                json!({"type": "Opaque", "data": {"a": "AA=="}}),
                &[],
            ),
            (
                "tls without keys",
                json!({"type": "kubernetes.io/tls"}),
                &["data[tls.crt] ", "data[tls.key] "],
            ),
            (
                "docker, not JSON",
                json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "bm90IGpzb24="}}),
                &["data[.dockerconfigjson] "],
            ),
            (
                "docker",
                json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}}),
                &[],
            ),
            (
                "password alone",
                json!({"type": "kubernetes.io/basic-auth", "data": {"password": "eA=="}}),
                &[],
            ),
            (
                "neither",
                json!({"type": "kubernetes.io/basic-auth"}),
                &["data[username] ", "data[password] "],
            ),
            (
                "no account",
                json!({"type": "kubernetes.io/service-account-token"}),
                &["metadata.annotations[kubernetes.io/service-account.name] "],
            ),
        ];
        for (what, object, expected) in rows {
            messages(what, validate(object), expected);
        }
        let update = validate_update(&json!({"type": "a/b"}), &json!({"type": "Opaque"}));
        messages("another type", update, &["type field is immutable"]);
    }
}

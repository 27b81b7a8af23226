//! The four ways to change an object in part: JSON patch, merge patch, strategic merge patch, server-side apply.
//!
//! Each takes the object as it is stored and the request's body, and gives the changed object in canonical form with the warnings to
//! send, or the error that kube-apiserver gives. Who owns which field afterwards is `managed`'s. Nothing here reads a clock or writes
//! anything; hooks, validation and the revision's check come after, in the caller.

pub mod apply;
pub mod fields;
pub mod json;
pub mod managed;
pub mod merge;
#[cfg(test)]
mod recorded;
pub mod strategic;
pub mod typed;

use crate::error::StatusError;
use crate::schema::Schema;
use crate::schema::decode::FieldValidation;
use serde_json::{Value, json};

/// A PATCH's content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
    /// Server-side apply: see [`apply`].
    Apply,
}

impl PatchType {
    /// From a `Content-Type` header, parameters and all; None is 415.
    pub fn of(content_type: &str) -> Option<Self> {
        match content_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
            .as_str()
        {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }
}

/// Applies a JSON, merge or strategic merge patch. An apply patch has more to know and goes to [`apply::apply`].
pub fn patch(
    schema: &'static Schema,
    kind: PatchType,
    current: &Value,
    body: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), StatusError> {
    let (mut patched, warnings) = match kind {
        PatchType::Json => json::patch(schema, current, body, validation)?,
        PatchType::Merge => merge::patch(schema, current, body, validation)?,
        PatchType::Strategic => strategic::patch(schema, current, body, validation)?,
        PatchType::Apply => {
            return Err(StatusError::internal(
                "an apply patch was given to the other patches",
            ));
        }
    };
    if let Some((group, version, kind)) = &schema.gvk {
        patched["kind"] = json!(kind);
        patched["apiVersion"] = json!(if group.is_empty() {
            version.clone()
        } else {
            format!("{group}/{version}")
        });
    }
    Ok((patched, warnings))
}

/// A value as Go's `%v` prints it, which some errors show: `map[a:1 b:[x y]]`.
fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(go_value).collect::<Vec<_>>().join(" ")
        ),
        Value::Object(map) => {
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            let pairs: Vec<String> = pairs
                .into_iter()
                .map(|(key, value)| format!("{key}:{}", go_value(value)))
                .collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

//! From what a client sent to an object in canonical form, as kube-apiserver's decode into a Go struct and encode again makes it.
//!
//! Canonical means: only known fields, in the schema's order; zero values left out where Go leaves them out and written where
//! Go writes them (`status: {}`, `lastProbeTime: null`); maps sorted; quantities, times and bytes in their one form. A field that is null
//! in the canonical form is as good as absent. Wrong types are refused in Go's words; unknown and repeated fields are
//! refused, told, or passed over in silence, as the request's `fieldValidation` says. No defaults are set here: see `defaults`.

#[cfg(test)]
mod tests;

use super::walk::{self, Words, name_of};
use super::{Schema, json, protobuf, yaml};
use crate::error::{FieldError, StatusError, go_json, go_quote};
use serde_json::{Value, json};

/// The `fieldValidation` of a request; the server's default is Warn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// A request's body by its content type.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    Json(&'a [u8]),
    Yaml(&'a [u8]),
    /// With Kubernetes' envelope around it.
    Protobuf(&'a [u8]),
}

/// A value brought into canonical form, and what was wrong with it that is wrong only under strict validation.
#[derive(Debug, PartialEq)]
pub struct Converted {
    pub value: Value,
    /// `unknown field "spec.foo"`
    pub strict: Vec<String>,
}

impl FieldValidation {
    /// From the query parameter. `options` is what Kubernetes calls the parameters' object: `CreateOptions`, `PatchOptions` …
    pub fn parse(text: &str, options: &str) -> Result<Self, StatusError> {
        match text {
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            "Strict" => Ok(Self::Strict),
            other => {
                let error = FieldError::not_supported(
                    "fieldValidation",
                    other,
                    &["", "Ignore", "Strict", "Warn"],
                );
                Err(StatusError::invalid("meta.k8s.io", options, "", [error]))
            }
        }
    }
}

/// Decodes a request's body as an object of the schema's kind. Gives the object in canonical form and the warnings to send.
/// Errors are 400 as kube-apiserver gives them.
pub fn decode(
    schema: &'static Schema,
    body: Body<'_>,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), StatusError> {
    let text = match body {
        Body::Json(text) | Body::Yaml(text) | Body::Protobuf(text) => text,
    };
    let kind = schema
        .gvk
        .as_ref()
        .map_or(schema.short_name(), |gvk| gvk.2.as_str());
    let unrecognized = |error: &str| {
        StatusError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {error} ({})",
            summary(text)
        ))
    };
    let mut message = None;
    let (value, repeated) = match body {
        Body::Json(text) => {
            let parsed = json::parse(text)
                .map_err(|error| unrecognized(&format!("{KIND_NOT_FOUND}: {error}")))?;
            (
                parsed.value,
                parsed
                    .duplicates
                    .into_iter()
                    .map(|path| format!("duplicate field {}", go_quote(&path)))
                    .collect(),
            )
        }
        Body::Yaml(text) => yaml::parse(text).map_err(|error| unrecognized(&error))?,
        Body::Protobuf(text) => {
            let envelope = protobuf::open(text).map_err(|error| unrecognized(&error))?;
            message = Some(envelope.message);
            (
                json!({"apiVersion": envelope.api_version, "kind": envelope.kind}),
                Vec::new(),
            )
        }
    };
    let (group, version, found) = kind_of(&value, schema).map_err(|error| unrecognized(&error))?;
    let refuse = |error: &str| {
        StatusError::bad_request(format!(
            "{found} in version {} cannot be handled as a {kind}: {error}",
            go_quote(&version)
        ))
    };
    let target = match &schema.gvk {
        None => schema,
        Some(_) => Schema::of_kind(&group, &version, &found).ok_or_else(|| {
            let api_version = api_version(&group, &version);
            refuse(&format!(
                "no kind {} is registered for version {} in scheme {SCHEME}",
                go_quote(&found),
                go_quote(&api_version)
            ))
        })?,
    };
    let mut value = match message {
        Some(message) => protobuf::read(target, message).map_err(|error| refuse(&error))?,
        None => value,
    };
    if let (Value::Object(map), Some(_)) = (&mut value, &schema.gvk) {
        // Before the walk, so that they come out in their place.
        map.insert("kind".into(), json!(found));
        map.insert("apiVersion".into(), json!(api_version(&group, &version)));
    }
    let Converted { value, strict } = convert(target, value).map_err(|error| refuse(&error))?;
    if let Some(wanted) = &schema.gvk {
        if (&group, &found) != (&wanted.0, &wanted.2) {
            let (from, to) = (target.short_name(), schema.short_name());
            let package = wanted
                .0
                .split('.')
                .next()
                .filter(|name| !name.is_empty())
                .unwrap_or("core");
            return Err(refuse(&format!(
                "converting ({version}.{from}) to ({package}.{to}): unknown conversion"
            )));
        }
        if version != wanted.1 {
            let (found, expected) = (
                api_version(&group, &version),
                api_version(&wanted.0, &wanted.1),
            );
            let text = format!(
                "the API version in the data ({found}) does not match the expected API version ({expected})"
            );
            return Err(StatusError::bad_request(text));
        }
    }
    let mut complaints: Vec<String> = repeated;
    complaints.extend(strict);
    match validation {
        FieldValidation::Ignore => Ok((value, Vec::new())),
        FieldValidation::Strict if !complaints.is_empty() => {
            Err(refuse(&strict_error(&complaints)))
        }
        _ => Ok((value, complaints)),
    }
}

/// Decodes what a JSON patch or a merge patch has made of an object. Errors are the 422 that the patch handler gives.
pub fn decode_patched(
    schema: &'static Schema,
    patched: Value,
    repeated: Vec<String>,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), StatusError> {
    let shown = go_json(&patched);
    let refuse = |error: String| {
        StatusError::invalid(
            "",
            "",
            "",
            [FieldError::invalid("patch", shown.as_str(), error)],
        )
    };
    if let Some(wanted) = &schema.gvk {
        let (group, version, kind) = kind_of(&patched, schema).map_err(refuse)?;
        if (&group, &version, &kind) != (&wanted.0, &wanted.1, &wanted.2) {
            let found = api_version(&group, &version);
            return Err(refuse(format!(
                "no kind {} is registered for version {} in scheme {SCHEME}",
                go_quote(&kind),
                go_quote(&found)
            )));
        }
    }
    let converted = convert(schema, patched).map_err(refuse)?;
    let mut complaints = repeated;
    complaints.extend(converted.strict);
    match validation {
        FieldValidation::Ignore => Ok((converted.value, Vec::new())),
        FieldValidation::Strict if !complaints.is_empty() => Err(refuse(strict_error(&complaints))),
        _ => Ok((converted.value, complaints)),
    }
}

/// Brings a value into the schema's canonical form. The error is Go's text for a wrong type.
pub fn convert(schema: &'static Schema, value: Value) -> Result<Converted, String> {
    walk::walk(schema, value, Words::Json)
}

/// The same for a strategic merge patch's result, whose type errors kube-apiserver words in another way; unknown fields come sorted.
pub fn convert_as_unstructured(schema: &'static Schema, value: Value) -> Result<Converted, String> {
    let mut converted = walk::walk(schema, value, Words::Unstructured)?;
    converted.strict.sort();
    Ok(converted)
}

/// Canonical form again, after hooks have written to an object: zero values that Go writes are there, others gone. What does
/// not fit the schema stays as it is, for it can only be our own mistake, which validation shows.
pub fn canonicalise(schema: &'static Schema, value: &mut Value) {
    if let Ok(converted) = convert(schema, value.clone()) {
        *value = converted.value;
    }
}

/// An object of which nothing was ever set: what a create is compared with.
pub fn empty(schema: &'static Schema) -> Value {
    convert(schema, json!({})).map_or_else(|_| json!({}), |converted| converted.value)
}

pub fn strict_error(complaints: &[String]) -> String {
    format!("strict decoding error: {}", complaints.join(", "))
}

const KIND_NOT_FOUND: &str = "couldn't get version/kind; json parse error";
/// Clients see where Kubernetes registers its kinds.
const SCHEME: &str = "\"pkg/api/legacyscheme/scheme.go:30\"";
/// How much of a body that can't be read is shown.
const SUMMARY_BYTES: usize = 30;
fn summary(body: &[u8]) -> String {
    let shown = &body[..body.len().min(SUMMARY_BYTES)];
    let more = if body.len() > SUMMARY_BYTES {
        " ..."
    } else {
        ""
    };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => {
            shown
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                + more
        }
    }
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// (group, version, kind) that the body names, completed from the schema's own.
fn kind_of(value: &Value, schema: &Schema) -> Result<(String, String, String), String> {
    let Value::Object(map) = value else {
        let typ = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
        return match value {
            Value::Null => Ok(schema.gvk.clone().unwrap_or_default()),
            other => Err(format!(
                "{KIND_NOT_FOUND}: json: cannot unmarshal {} into Go value of type {typ}",
                name_of(other)
            )),
        };
    };
    let text = |field: &str| match map.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => Err(format!(
            "{KIND_NOT_FOUND}: json: cannot unmarshal {} into Go struct field .{field} of type string",
            name_of(other)
        )),
    };
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    let (mut group, mut version) = match api_version.split('/').collect::<Vec<_>>().as_slice() {
        [version] => (String::new(), (*version).to_owned()),
        [group, version] => ((*group).to_owned(), (*version).to_owned()),
        _ => return Err(format!("unexpected GroupVersion string: {api_version}")),
    };
    let default = schema.gvk.clone().unwrap_or_else(|| {
        (
            String::new(),
            "v1".to_owned(),
            schema.short_name().to_owned(),
        )
    });
    if version.is_empty() && (group.is_empty() || group == default.0) {
        (group, version) = (default.0, default.1);
    }
    Ok((
        group,
        version,
        if kind.is_empty() {
            default.2
        } else {
            kind.to_owned()
        },
    ))
}

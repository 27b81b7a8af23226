//! From what a client sent to an object in canonical form, as kube-apiserver's decode into a Go struct and encode again makes it.
//!
//! Canonical means: only known fields, in the schema's order; zero values left out where Go leaves them out and written where
//! Go writes them (`status: {}`, `lastProbeTime: null`); maps sorted; quantities, times and bytes in their one form. A field that is null
//! in the canonical form is as good as absent. Wrong types are refused in Go's words; unknown and repeated fields are
//! refused, told, or passed over in silence, as the request's `fieldValidation` says. No defaults are set here: see `defaults`.

use super::json::{self, MAX_STRICT_ERRORS};
use super::{Field, Fields, Schema, Shape, Type, yaml};
use crate::error::{FieldError, StatusError, go_json, go_quote};
use crate::quantity::Quantity;
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

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
                let error = FieldError::not_supported("fieldValidation", other, &["", "Ignore", "Strict", "Warn"]);
                Err(StatusError::invalid("meta.k8s.io", options, "", [error]))
            }
        }
    }
}

/// Decodes a request's body as an object of the schema's kind. Gives the object in canonical form and the warnings to send.
/// Errors are 400 as kube-apiserver gives them.
pub fn decode(schema: &'static Schema, body: Body<'_>, validation: FieldValidation) -> Result<(Value, Vec<String>), StatusError> {
    let text = match body {
        Body::Json(text) | Body::Yaml(text) => text,
    };
    let kind = schema.gvk.as_ref().map_or(schema.short_name(), |gvk| gvk.2.as_str());
    let unrecognized = |error: &str| {
        StatusError::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {error} ({})", summary(text)))
    };
    let (value, repeated) = match body {
        Body::Json(text) => {
            let parsed = json::parse(text).map_err(|error| unrecognized(&format!("{KIND_NOT_FOUND}: {error}")))?;
            (parsed.value, parsed.duplicates.into_iter().map(|path| format!("duplicate field {}", go_quote(&path))).collect())
        }
        Body::Yaml(text) => yaml::parse(text).map_err(|error| unrecognized(&error))?,
    };
    let (group, version, found) = kind_of(&value, schema).map_err(|error| unrecognized(&error))?;
    let refuse = |error: &str| {
        StatusError::bad_request(format!("{found} in version {} cannot be handled as a {kind}: {error}", go_quote(&version)))
    };
    let target = match &schema.gvk {
        None => schema,
        Some(_) => Schema::of_kind(&group, &version, &found).ok_or_else(|| {
            let api_version = api_version(&group, &version);
            refuse(&format!("no kind {} is registered for version {} in scheme {SCHEME}", go_quote(&found), go_quote(&api_version)))
        })?,
    };
    let Converted { mut value, strict } = convert(target, value).map_err(|error| refuse(&error))?;
    if let Some(wanted) = &schema.gvk {
        if (&group, &found) != (&wanted.0, &wanted.2) {
            let (from, to) = (target.short_name(), schema.short_name());
            let package = wanted.0.split('.').next().filter(|name| !name.is_empty()).unwrap_or("core");
            return Err(refuse(&format!("converting ({version}.{from}) to ({package}.{to}): unknown conversion")));
        }
        if version != wanted.1 {
            let (found, expected) = (api_version(&group, &version), api_version(&wanted.0, &wanted.1));
            let text = format!("the API version in the data ({found}) does not match the expected API version ({expected})");
            return Err(StatusError::bad_request(text));
        }
        value["kind"] = json!(wanted.2);
        value["apiVersion"] = json!(api_version(&wanted.0, &wanted.1));
    }
    let mut complaints: Vec<String> = repeated;
    complaints.extend(strict);
    match validation {
        FieldValidation::Ignore => Ok((value, Vec::new())),
        FieldValidation::Strict if !complaints.is_empty() => Err(refuse(&strict_error(&complaints))),
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
    let refuse = |error: String| StatusError::invalid("", "", "", [FieldError::invalid("patch", shown.as_str(), error)]);
    if let Some(wanted) = &schema.gvk {
        let (group, version, kind) = kind_of(&patched, schema).map_err(refuse)?;
        if (&group, &version, &kind) != (&wanted.0, &wanted.1, &wanted.2) {
            let found = api_version(&group, &version);
            return Err(refuse(format!("no kind {} is registered for version {} in scheme {SCHEME}", go_quote(&kind), go_quote(&found))));
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
    walk(schema, value, Walk::default())
}

/// The same for a strategic merge patch's result, whose type errors kube-apiserver words in another way; unknown fields come sorted.
pub fn convert_as_unstructured(schema: &'static Schema, value: Value) -> Result<Converted, String> {
    let mut converted = walk(schema, value, Walk { unstructured: true, ..Walk::default() })?;
    converted.strict.sort();
    Ok(converted)
}

fn walk(schema: &'static Schema, value: Value, mut walk: Walk) -> Result<Converted, String> {
    let value = match (&schema.shape, value) {
        (Shape::Struct(fields), Value::Object(map)) => walk.fields(schema, fields, map)?,
        (Shape::Struct(_), other) => return Err(format!("json: cannot unmarshal {} into Go value of type {}", name_of(&other), schema.go_name())),
        (_, other) => other,
    };
    match walk.saved {
        Some(error) => Err(error),
        None => Ok(Converted { value, strict: walk.strict }),
    }
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
/// Kubernetes reads base64 loosely: stray bits in the last symbol do no harm.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true).with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

fn summary(body: &[u8]) -> String {
    let shown = &body[..body.len().min(SUMMARY_BYTES)];
    let more = if body.len() > SUMMARY_BYTES { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + more,
    }
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// (group, version, kind) that the body names, completed from the schema's own.
fn kind_of(value: &Value, schema: &Schema) -> Result<(String, String, String), String> {
    let Value::Object(map) = value else {
        let typ = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
        return match value {
            Value::Null => Ok(schema.gvk.clone().unwrap_or_default()),
            other => Err(format!("{KIND_NOT_FOUND}: json: cannot unmarshal {} into Go value of type {typ}", name_of(other))),
        };
    };
    let text = |field: &str| match map.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => {
            Err(format!("{KIND_NOT_FOUND}: json: cannot unmarshal {} into Go struct field .{field} of type string", name_of(other)))
        }
    };
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    let (mut group, mut version) = match api_version.split('/').collect::<Vec<_>>().as_slice() {
        [version] => (String::new(), (*version).to_owned()),
        [group, version] => ((*group).to_owned(), (*version).to_owned()),
        _ => return Err(format!("unexpected GroupVersion string: {api_version}")),
    };
    let default = schema.gvk.clone().unwrap_or_else(|| (String::new(), "v1".to_owned(), schema.short_name().to_owned()));
    if version.is_empty() && (group.is_empty() || group == default.0) {
        (group, version) = (default.0, default.1);
    }
    Ok((group, version, if kind.is_empty() { default.2 } else { kind.to_owned() }))
}

/// What Go calls a JSON value in a type error.
fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[derive(Default)]
struct Walk {
    /// `spec.containers[0]`, for strict errors.
    path: String,
    /// `spec`, `containers`: the fields alone, for type errors.
    stack: Vec<&'static str>,
    /// The struct whose field is being read.
    owner: &'static str,
    /// The first type error; reading goes on, as Go's does, for an error of a type's own reader outranks it.
    saved: Option<String>,
    strict: Vec<String>,
    /// Type errors in the words of Kubernetes' converter of unstructured objects, not of its JSON decoder.
    unstructured: bool,
}

impl Walk {
    fn fields(&mut self, schema: &'static Schema, fields: &'static Fields, map: Map<String, Value>) -> Result<Value, String> {
        let outer = std::mem::replace(&mut self.owner, schema.short_name());
        let mut slots: Vec<Option<Value>> = vec![None; fields.list.len()];
        for (key, value) in map {
            let length = self.enter_key(&key);
            match fields.index.get(&key) {
                None if self.strict.len() < MAX_STRICT_ERRORS => self.strict.push(format!("unknown field {}", go_quote(&self.path))),
                None => {}
                Some(_) if value.is_null() => {}
                Some(index) => {
                    let field = &fields.list[*index];
                    self.stack.push(&field.name);
                    slots[*index] = self.value(&field.ty, field.go.as_deref(), value)?;
                    self.stack.pop();
                }
            }
            self.path.truncate(length);
        }
        self.owner = outer;
        let mut object = Map::with_capacity(fields.list.len().min(8));
        for (field, slot) in fields.list.iter().zip(slots) {
            match slot {
                Some(value) if !is_omitted(field, &value) => object.insert(field.name.clone(), value),
                _ if field.always => object.insert(field.name.clone(), if field.pointer { Value::Null } else { zero(&field.ty) }),
                _ => None,
            };
        }
        Ok(Value::Object(object))
    }

    /// None where the value is null or of a wrong type, which is saved. Err is what ends the reading at once.
    fn value(&mut self, ty: &'static Type, go: Option<&str>, value: Value) -> Result<Option<Value>, String> {
        let value = match (ty, value) {
            (_, Value::Null) => return Ok(None),
            (Type::Any, value) => value,
            (Type::String, Value::String(text)) => Value::String(text),
            (Type::Bool, Value::Bool(value)) => Value::Bool(value),
            (Type::Bytes, Value::String(text)) => match bytes(&text) {
                Ok(text) => Value::String(text),
                Err(error) => {
                    self.saved.get_or_insert(error);
                    return Ok(None);
                }
            },
            (Type::Double, Value::Number(number)) => Value::Number(number),
            (Type::Int32 | Type::Int64, Value::Number(number)) => match number.as_i64() {
                Some(whole) if *ty == Type::Int64 || i32::try_from(whole).is_ok() => Value::Number(number),
                _ => {
                    self.wrong_type(&format!("number {number}"), &Value::Number(number), ty, go);
                    return Ok(None);
                }
            },
            (Type::List(element), Value::Array(items)) => self.list(element, go, items)?,
            (Type::Map(element), Value::Object(map)) => self.map(element, go, map)?,
            (Type::Named(_), value) => {
                let schema = ty.schema().expect("a named type has its schema: the table resolves names when it is read");
                return self.named(schema, ty, go, value);
            }
            (_, other) => {
                self.wrong_type(name_of(&other), &other, ty, go);
                return Ok(None);
            }
        };
        Ok(Some(value))
    }

    fn list(&mut self, element: &'static Type, go: Option<&str>, items: Vec<Value>) -> Result<Value, String> {
        let go = go.map(go_element);
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let length = self.path.len();
            self.path.push('[');
            self.path.push_str(&index.to_string());
            self.path.push(']');
            let item = self.value(element, go, item)?;
            self.path.truncate(length);
            list.push(item.unwrap_or_else(|| zero(element)));
        }
        Ok(Value::Array(list))
    }

    fn map(&mut self, element: &'static Type, go: Option<&str>, map: Map<String, Value>) -> Result<Value, String> {
        let go = go.map(go_element);
        let mut sorted = Map::with_capacity(map.len());
        for (key, value) in map {
            let length = self.enter_key(&key);
            let value = self.value(element, go, value)?;
            self.path.truncate(length);
            sorted.insert(key, value.unwrap_or_else(|| zero(element)));
        }
        sorted.sort_keys();
        Ok(Value::Object(sorted))
    }

    fn named(&mut self, schema: &'static Schema, ty: &'static Type, go: Option<&str>, value: Value) -> Result<Option<Value>, String> {
        let value = match (&schema.shape, value) {
            (Shape::Struct(fields), Value::Object(map)) => self.fields(schema, fields, map)?,
            (Shape::Struct(_), other) => {
                self.wrong_type(name_of(&other), &other, ty, go);
                return Ok(None);
            }
            (Shape::Any, value) => value,
            (Shape::Quantity, value) => {
                let text = match &value {
                    Value::String(text) => text.trim().to_owned(),
                    other => other.to_string(),
                };
                Value::String(Quantity::parse(&text).map_err(|error| error.to_string())?.to_string())
            }
            (Shape::IntOrString, Value::String(text)) => Value::String(text),
            (Shape::IntOrString, Value::Number(number)) if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) => {
                Value::Number(number)
            }
            (Shape::IntOrString, Value::Number(number)) => return Err(self.type_error(&format!("number {number}"), "int32")),
            (Shape::IntOrString, other) => return Err(self.type_error(name_of(&other), "int32")),
            (Shape::Time | Shape::MicroTime, Value::String(text)) => match time(&text, matches!(schema.shape, Shape::MicroTime))? {
                Some(text) => Value::String(text),
                None => return Ok(None),
            },
            (Shape::Time | Shape::MicroTime, other) => return Err(self.type_error(name_of(&other), "string")),
        };
        Ok(Some(value))
    }

    fn enter_key(&mut self, key: &str) -> usize {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        length
    }

    fn wrong_type(&mut self, shown: &str, found: &Value, ty: &Type, go: Option<&str>) {
        if self.saved.is_none() {
            let go = go.map_or_else(|| ty.go_name(), str::to_owned);
            self.saved = Some(if self.unstructured { converter_error(found, ty, &go) } else { self.type_error(shown, &go) });
        }
    }

    fn type_error(&self, found: &str, go: &str) -> String {
        format!("json: cannot unmarshal {found} into Go struct field {}.{} of type {go}", self.owner, self.stack.join("."))
    }
}

/// A type error as Kubernetes' converter of unstructured objects says it.
fn converter_error(found: &Value, ty: &Type, go: &str) -> String {
    let kind = match found {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    };
    match (ty, kind) {
        (Type::List(_) | Type::Bytes, kind) => format!("cannot restore slice from {kind}"),
        (Type::Map(_), kind) => format!("cannot restore map from {kind}"),
        (Type::Named(_), kind) => format!("cannot restore struct from: {kind}"),
        (Type::String, "int64") | (Type::Int32 | Type::Int64, "int64" | "float64") => format!("cannot convert {kind} to {go}"),
        (scalar, _) => format!("unrecognized type: {}", scalar.go_name()),
    }
}

/// The element of a Go list or map type: `[]v1.Verb` -> `v1.Verb`.
fn go_element(go: &str) -> &str {
    go.split_once(']').map_or(go, |(_, element)| element)
}

/// Go's `omitempty`.
fn is_omitted(field: &Field, value: &Value) -> bool {
    if field.pointer {
        return false;
    }
    match (&field.ty, value) {
        (Type::List(_), Value::Array(items)) => items.is_empty(),
        (Type::Map(_), Value::Object(map)) => map.is_empty(),
        (Type::String | Type::Bytes, Value::String(text)) => text.is_empty() ,
        (Type::Bool, Value::Bool(value)) => !value,
        (Type::Int32 | Type::Int64 | Type::Double, value) => value.as_f64() == Some(0.0),
        _ => false,
    }
}

/// What Go writes for a value that was never set.
fn zero(ty: &'static Type) -> Value {
    match ty {
        Type::String | Type::Bytes => json!(""),
        Type::Int32 | Type::Int64 | Type::Double => json!(0),
        Type::Bool => json!(false),
        Type::List(_) | Type::Map(_) | Type::Any => Value::Null,
        Type::Named(_) => match ty.schema() {
            Some(schema) => match &schema.shape {
                Shape::Struct(fields) => {
                    let always = fields.list.iter().filter(|field| field.always);
                    let zero = |field: &'static Field| if field.pointer { Value::Null } else { zero(&field.ty) };
                    Value::Object(always.map(|field| (field.name.clone(), zero(field))).collect())
                }
                Shape::Quantity => json!("0"),
                Shape::IntOrString => json!(0),
                Shape::Time | Shape::MicroTime | Shape::Any => Value::Null,
            },
            None => Value::Null,
        },
    }
}

fn bytes(text: &str) -> Result<String, String> {
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let raw = BASE64.decode(&joined).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => joined.len() / 4 * 4,
        };
        format!("illegal base64 data at input byte {at}")
    })?;
    Ok(BASE64.encode(raw))
}

/// A time in its one form; None for Go's zero time, which is written as null.
fn time(text: &str, micro: bool) -> Result<Option<String>, String> {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    check_time(text, layout, micro)?;
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| format!("parsing time {}: day out of range", go_quote(text)))?;
    let time = time.with_timezone(&Utc);
    let shown = time.to_rfc3339_opts(if micro { SecondsFormat::Micros } else { SecondsFormat::Secs }, true);
    Ok((!shown.starts_with("0001-01-01T00:00:00")).then_some(shown))
}

/// Go's complaint about the first part of the text that does not fit the layout.
fn check_time(text: &str, layout: &str, micro: bool) -> Result<(), String> {
    let cannot = |rest: &str, part: &str| Err(format!("parsing time {} as {}: cannot parse {} as {}", go_quote(text), go_quote(layout), go_quote(rest), go_quote(part)));
    let mut rest = text;
    let parts = [("2006", 4), ("-", 0), ("01", 2), ("-", 0), ("02", 2), ("T", 0), ("15", 2), (":", 0), ("04", 2), (":", 0), ("05", 2)];
    let limits = [("month", "01", 1, 12), ("day", "02", 1, 31), ("hour", "15", 0, 23), ("minute", "04", 0, 59), ("second", "05", 0, 59)];
    for (part, digits) in parts {
        if digits == 0 {
            let Some(after) = rest.strip_prefix(part) else { return cannot(rest, part) };
            rest = after;
            continue;
        }
        let number = rest.get(..digits).filter(|number| number.bytes().all(|c| c.is_ascii_digit()));
        let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else { return cannot(rest, part) };
        if let Some((name, ..)) = limits.iter().find(|limit| limit.1 == part && !(limit.2..=limit.3).contains(&number)) {
            return Err(format!("parsing time {}: {name} out of range", go_quote(text)));
        }
        rest = &rest[digits..];
    }
    let fraction = rest.strip_prefix('.').map(|rest| rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len());
    match fraction {
        Some(digits) if digits > 0 && (!micro || digits == 6) => rest = &rest[1 + digits..],
        _ if micro => return cannot(rest, ".000000"),
        _ => {}
    }
    let zone = rest.as_bytes();
    let offset = zone.len() == 6 && matches!(zone[0], b'+' | b'-') && zone[3] == b':' && [1, 2, 4, 5].iter().all(|at| zone[*at].is_ascii_digit());
    if rest == "Z" || offset {
        return Ok(());
    }
    match rest.strip_prefix('Z') {
        Some(extra) => Err(format!("parsing time {}: extra text: {}", go_quote(text), go_quote(extra))),
        None => cannot(rest, "Z07:00"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(kind: &str) -> &'static Schema {
        match kind {
            "Deployment" => Schema::of_kind("apps", "v1", kind).unwrap(),
            kind => Schema::of_kind("", "v1", kind).unwrap(),
        }
    }

    #[test]
    fn objects_come_out_in_canonical_form() {
        let rows = [
            ("ConfigMap", json!({"data": {"b": "2", "a": null}, "metadata": {"name": "c", "labels": {}}, "immutable": false}),
             json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}, "data": {"a": "", "b": "2"}, "immutable": false})),
            ("Pod", json!({"spec": {"containers": [{"name": "m", "image": "", "resources": {"limits": {"cpu": "0.5", "memory": 1024}}, "ports": [{"hostPort": 0}], "env": [{"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "x"}}}]}], "hostNetwork": false, "priority": 0, "nodeName": null}, "status": {"conditions": [{"type": "Ready", "lastTransitionTime": "2024-01-02T03:04:05.678+01:00"}]}}),
             json!({"kind": "Pod", "apiVersion": "v1", "metadata": {}, "spec": {"containers": [{"name": "m", "env": [{"name": "a", "valueFrom": {"resourceFieldRef": {"divisor": "0", "resource": "x"}}}], "ports": [{"containerPort": 0}], "resources": {"limits": {"cpu": "500m", "memory": "1024"}}}], "priority": 0},
                   "status": {"conditions": [{"lastProbeTime": null, "lastTransitionTime": "2024-01-02T02:04:05Z", "status": "", "type": "Ready"}]}})),
            ("Deployment", json!({"spec": {"replicas": 0, "minReadySeconds": 0, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}, "template": {"spec": {"containers": []}}}}),
             json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {}, "spec": {"replicas": 0, "selector": null, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}, "template": {"metadata": {}, "spec": {"containers": null}}}, "status": {}})),
            ("Secret", json!({"data": {"a": "aGk=", "b": ""}, "type": "Opaque"}), json!({"kind": "Secret", "apiVersion": "v1", "metadata": {}, "data": {"a": "aGk=", "b": ""}, "type": "Opaque"})),
        ];
        for (kind, sent, canonical) in rows {
            let (value, warnings) = decode(schema(kind), Body::Json(sent.to_string().as_bytes()), FieldValidation::Warn).unwrap();
            assert_eq!((value.to_string(), warnings), (reordered(&canonical, &value), vec![]), "{kind}");
            let mut again = value.clone();
            canonicalise(schema(kind), &mut again);
            assert_eq!(again, value, "canonical form is its own canonical form");
        }
    }

    /// The expected value, written with the keys in the order they came out: equality of text then shows any difference at all.
    fn reordered(expected: &Value, found: &Value) -> String {
        if expected == found { found.to_string() } else { expected.to_string() }
    }

    #[test]
    fn bodies_that_do_not_fit_are_refused_in_the_servers_words() {
        let rows = [
            ("ConfigMap", "{not json", "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid character 'n' looking for beginning of object key string ({not json)"),
            ("ConfigMap", "", "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"),
            ("ConfigMap", "[]", "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" } (5b5d)"),
            ("ConfigMap", r#"{"apiVersion":"v1","kind":"Secret"}"#, "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion"),
            ("ConfigMap", r#"{"apiVersion":"v2","kind":"ConfigMap"}"#, "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""),
            ("ConfigMap", r#"{"data":{"a":1}}"#, "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
            ("Deployment", r#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":"2"}}"#, "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"),
            ("Deployment", r#"{"spec":{"template":{"spec":{"containers":[{"env":[{"name":"a","value":1}]}]}}}}"#, "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string"),
            ("Pod", r#"{"spec":{"containers":{}}}"#, "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"),
            ("Pod", r#"{"spec":{"containers":[{"imagePullPolicy":true}]}}"#, "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal bool into Go struct field Container.spec.containers.imagePullPolicy of type v1.PullPolicy"),
            ("Pod", r#"{"spec":{"priority":3000000000}}"#, "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32"),
            ("Pod", r#"{"spec":{"priority":"x","containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}"#, "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
            ("Secret", r#"{"data":{"a":"a!bc"}}"#, "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 1"),
            ("Service", r#"{"spec":{"ports":[{"targetPort":true}]}}"#, "Service in version \"v1\" cannot be handled as a Service: json: cannot unmarshal bool into Go struct field ServicePort.spec.ports.targetPort of type int32"),
            ("Pod", r#"{"metadata":{"deletionTimestamp":"yesterday"}}"#, "Pod in version \"v1\" cannot be handled as a Pod: parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\""),
        ];
        for (kind, body, message) in rows {
            let error = decode(schema(kind), Body::Json(body.as_bytes()), FieldValidation::Warn).unwrap_err();
            assert_eq!((error.code, error.reason, error.message.as_str()), (400, "BadRequest", message), "{body}");
        }
    }

    #[test]
    fn unknown_and_repeated_fields_are_told_as_asked() {
        let body = r#"{"spec":{"containers":[{"name":"m","imagee":"x"}],"restartPolice":"Never"},"metadata":{"name":"a","name":"b"}}"#;
        let said = ["duplicate field \"metadata.name\"", "unknown field \"spec.containers[0].imagee\"", "unknown field \"spec.restartPolice\""];
        let decoded = |validation| decode(schema("Pod"), Body::Json(body.as_bytes()), validation);
        assert_eq!(decoded(FieldValidation::Warn).unwrap().1, said);
        assert_eq!(decoded(FieldValidation::Ignore).unwrap().1, Vec::<String>::new());
        assert_eq!(decoded(FieldValidation::Strict).unwrap_err().message, format!("Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: {}", said.join(", ")));
        let harsh = FieldValidation::parse("Harsh", "CreateOptions").unwrap_err();
        assert_eq!(harsh.message, "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Harsh\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"");
    }

    #[test]
    fn yaml_is_read_as_kubernetes_reads_it() {
        let rows = [
            ("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-yaml\ndata:\n  a: b\n", Ok(json!({"a": "b"})), 0),
            ("data:\n  a: \"1\"\n  a: \"2\"\n", Ok(json!({"a": "2"})), 1),
            ("data:\n  a: yes\n", Err("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal bool into Go struct field ConfigMap.data of type string"), 0),
            ("a: [", Err("the object provided is unrecognized (must be of type ConfigMap): error converting YAML to JSON: yaml: "), 0),
        ];
        for (body, expected, warnings) in rows {
            match (decode(schema("ConfigMap"), Body::Yaml(body.as_bytes()), FieldValidation::Warn), expected) {
                (Ok((value, told)), Ok(data)) => assert_eq!((&value["data"], told.len()), (&data, warnings), "{body}"),
                (Err(error), Err(message)) => assert!(error.message.starts_with(message), "{body}: {}", error.message),
                (found, expected) => panic!("{body}: {found:?}, expected {expected:?}"),
            }
        }
    }
}

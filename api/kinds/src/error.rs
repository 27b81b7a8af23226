//! Errors as Kubernetes says them: a `Status` with code, reason, message and details; and the field errors it is made of.
//!
//! Clients compare these texts (kubectl prints them, controllers match reasons), so each constructor gives exactly what
//! kube-apiserver gives for the same cause. Nothing here decides when to refuse; that is the caller's.

#[cfg(test)]
mod tests;

use serde_json::{Value, json};
use std::fmt;

/// One thing wrong with a field (Kubernetes: `field.Error`). Its text is `path: Kind: …`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// `spec.containers[0].image`
    pub path: String,
    pub kind: FieldErrorKind,
    /// What was there, as Go's `%v`/JSON prints it in the message; None for `Required` and `Forbidden`.
    pub value: Option<Value>,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    Required,
    Invalid,
    NotSupported,
    Forbidden,
    Duplicate,
    TooLong,
    TooShort,
    TooMany,
    TooFew,
    NotFound,
    TypeInvalid,
    Internal,
}

/// A refusal, typed: becomes one HTTP status and one `Status` object.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusError {
    pub code: u16,
    /// `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, `BadRequest` …; empty for none.
    pub reason: &'static str,
    pub message: String,
    /// `details` of the Status, whole; Null for none.
    pub details: Value,
}

impl FieldErrorKind {
    /// The cause's `reason` in a Status.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooShort => "FieldValueTooShort",
            Self::TooMany => "FieldValueTooMany",
            Self::TooFew => "FieldValueTooFew",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::Duplicate => "Duplicate value",
            Self::TooLong => "Too long",
            Self::TooShort => "Too short",
            Self::TooMany => "Too many",
            Self::TooFew => "Too few",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }

    const fn shows_value(self) -> bool {
        !matches!(
            self,
            Self::Required | Self::Forbidden | Self::TooLong | Self::TooShort | Self::Internal
        )
    }
}

impl FieldError {
    fn new(
        path: impl Into<String>,
        kind: FieldErrorKind,
        value: Option<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            kind,
            value,
            detail: detail.into(),
        }
    }

    /// `path: Required value: detail`
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(path, FieldErrorKind::Required, None, detail)
    }

    /// `path: Invalid value: "v": detail`
    pub fn invalid(
        path: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(path, FieldErrorKind::Invalid, Some(value.into()), detail)
    }

    /// `path: Unsupported value: "v": supported values: "A", "B"`. Kubernetes sorts `supported` in most places: the caller does.
    pub fn not_supported<S: AsRef<str>>(
        path: impl Into<String>,
        value: impl Into<Value>,
        supported: &[S],
    ) -> Self {
        let quoted: Vec<String> = supported
            .iter()
            .map(|value| go_quote(value.as_ref()))
            .collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(
            path,
            FieldErrorKind::NotSupported,
            Some(value.into()),
            detail,
        )
    }

    /// `path: Forbidden: detail`
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(path, FieldErrorKind::Forbidden, None, detail)
    }

    /// `path: Duplicate value: "v"`
    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(path, FieldErrorKind::Duplicate, Some(value.into()), "")
    }

    /// `path: Not found: "v"`
    pub fn not_found(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(path, FieldErrorKind::NotFound, Some(value.into()), "")
    }

    /// `path: Too long: may not be more than N bytes`
    pub fn too_long(path: impl Into<String>, max_bytes: usize) -> Self {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        Self::new(
            path,
            FieldErrorKind::TooLong,
            None,
            format!("may not be more than {max_bytes} {unit}"),
        )
    }

    /// `path: Too long: may not be more than N characters`
    pub fn too_long_characters(path: impl Into<String>, max: usize) -> Self {
        let unit = if max == 1 { "character" } else { "characters" };
        Self::new(
            path,
            FieldErrorKind::TooLong,
            None,
            format!("may not be more than {max} {unit}"),
        )
    }

    /// `path: Too many: 4: must have at most 3 items`
    pub fn too_many(path: impl Into<String>, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::new(
            path,
            FieldErrorKind::TooMany,
            Some(json!(actual)),
            format!("must have at most {max} {unit}"),
        )
    }

    /// `path: Invalid value: …`, with the reason `FieldValueTypeInvalid`.
    pub fn type_invalid(
        path: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(
            path,
            FieldErrorKind::TypeInvalid,
            Some(value.into()),
            detail,
        )
    }

    /// `path: Internal error: detail`
    pub fn internal(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(path, FieldErrorKind::Internal, None, detail)
    }

    /// The text without the path: what a cause's `message` holds.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if let (true, Some(value)) = (self.kind.shows_value(), &self.value) {
            text.push_str(": ");
            text.push_str(&match value {
                Value::String(value) => go_quote(value),
                other => go_json(other),
            });
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    fn cause(&self) -> Value {
        let mut cause = json!({"reason": self.kind.reason(), "message": self.body()});
        if !self.path.is_empty() {
            cause["field"] = json!(self.path);
        }
        cause
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

impl StatusError {
    /// The `Status` object to answer with.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status["code"] = json!(self.code);
        status
    }

    pub fn new(
        code: u16,
        reason: &'static str,
        message: impl Into<String>,
        details: Value,
    ) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details,
        }
    }

    /// 404: `deployments.apps "web" not found`
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {} not found", qualified(group, plural), go_quote(name));
        Self::new(404, "NotFound", message, details(group, plural, name))
    }

    /// 404 for a path that names no resource.
    pub fn no_such_path() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
            json!({}),
        )
    }

    /// 409: `configmaps "c" already exists`
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!(
            "{} {} already exists",
            qualified(group, plural),
            go_quote(name)
        );
        Self::new(409, "AlreadyExists", message, details(group, plural, name))
    }

    /// 409 for a POST of a name that is there and on its way out.
    pub fn already_exists_and_is_being_deleted(group: &str, plural: &str, name: &str) -> Self {
        let mut error = Self::already_exists(group, plural, name);
        error.message = format!("object is being deleted: {}", error.message);
        error
    }

    /// 409 when every generated name was taken.
    pub fn generate_name_conflict(
        group: &str,
        plural: &str,
        name: &str,
        retry_after_s: u32,
    ) -> Self {
        let mut error = Self::already_exists(group, plural, name);
        error
            .message
            .push_str(", the server was not able to generate a unique name for the object");
        error.details["retryAfterSeconds"] = json!(retry_after_s);
        error
    }

    /// 409: `Operation cannot be fulfilled on …: text`. `modified` is the usual text.
    pub fn conflict(group: &str, plural: &str, name: &str, text: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {}: {text}",
            qualified(group, plural),
            go_quote(name)
        );
        Self::new(409, "Conflict", message, details(group, plural, name))
    }

    /// 409 for a stale `resourceVersion`.
    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        Self::conflict(group, plural, name, OBJECT_MODIFIED)
    }

    /// 422 with the causes. `kind` is the kind (`Deployment`), or the plural where Kubernetes says that.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: impl AsRef<[FieldError]>) -> Self {
        let errors = errors.as_ref();
        let mut texts: Vec<String> = Vec::new();
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let mut message = format!("{} {} is invalid", qualified(group, kind), go_quote(name));
        match texts.as_slice() {
            [] => {}
            [one] => message.push_str(&format!(": {one}")),
            several => message.push_str(&format!(": [{}]", several.join(", "))),
        }
        let mut details = details(group, kind, name);
        if !errors.is_empty() {
            details["causes"] = errors.iter().map(FieldError::cause).collect();
        }
        Self::new(422, "Invalid", message, details)
    }

    /// 422 that tells nothing more, as for a JSON patch that can't be applied.
    pub fn unprocessable() -> Self {
        Self::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
            json!({}),
        )
    }

    /// 400
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message, Value::Null)
    }

    /// 401; Kubernetes says `Unauthorized` and no more.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized", Value::Null)
    }

    /// 403: `pods "web" is forbidden: text`; without a name `pods is forbidden: …`; without a resource `forbidden: …`.
    pub fn forbidden(group: &str, plural: &str, name: &str, text: &str) -> Self {
        let message = match (plural.is_empty() && group.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {text}"),
            (false, true) => format!("{} is forbidden: {text}", qualified(group, plural)),
            (false, false) => format!(
                "{} {} is forbidden: {text}",
                qualified(group, plural),
                go_quote(name)
            ),
        };
        Self::new(403, "Forbidden", message, details(group, plural, name))
    }

    /// 405 as the router gives it, for a method that the path has not.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
            json!({}),
        )
    }

    /// 405 for a verb that the resource has not: `delete is not supported on resources of kind "…"`
    pub fn method_not_supported(group: &str, plural: &str, action: &str) -> Self {
        let message = format!(
            "{action} is not supported on resources of kind {}",
            go_quote(&qualified(group, plural))
        );
        Self::new(405, "MethodNotAllowed", message, details(group, plural, ""))
    }

    /// 406 where `Accept` names nothing that is served at all.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!(
            "406: Not Acceptable\n\nAvailable representations: {}",
            accepted.join(", ")
        );
        Self::new(406, "NotAcceptable", message, json!({}))
    }

    /// 406 where the media type is served, but not with the transformation asked for (`as=Table` and the like).
    pub fn not_acceptable_transformation(accepted: &[&str]) -> Self {
        let message = format!(
            "only the following media types are accepted: {}",
            accepted.join(", ")
        );
        Self::new(406, "NotAcceptable", message, Value::Null)
    }

    /// 415
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message, Value::Null)
    }

    /// 413
    pub fn request_entity_too_large(limit_bytes: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit_bytes}");
        Self::new(413, "RequestEntityTooLarge", message, Value::Null)
    }

    /// 413 where not the body as such, but something in it is too large.
    pub fn too_large(text: &str) -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: {text}"),
            Value::Null,
        )
    }

    /// 429 with `Retry-After`.
    pub fn too_many_requests(message: impl Into<String>, retry_after_s: u32) -> Self {
        Self::new(429, "TooManyRequests", message, retry(retry_after_s))
    }

    /// 504: the outcome is unknown. `Timeout: …`
    pub fn timeout(message: &str, retry_after_s: u32) -> Self {
        Self::new(
            504,
            "Timeout",
            format!("Timeout: {message}"),
            retry(retry_after_s),
        )
    }

    /// 504 for a revision that this server has not reached yet.
    pub fn too_large_resource_version(wanted: u64, current: u64) -> Self {
        let mut error = Self::timeout(
            &format!("Too large resource version: {wanted}, current: {current}"),
            1,
        );
        error.details["causes"] =
            json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
        error
    }

    /// 410, reason `Expired`.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message, Value::Null)
    }

    /// 410, reason `Gone`.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Gone", message, Value::Null)
    }

    /// 500: `Internal error occurred: …`
    pub fn internal(text: &str) -> Self {
        let details = json!({"causes": [{"message": text}]});
        Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {text}"),
            details,
        )
    }

    /// 500 without reason: what kube-apiserver makes of an error that it has no class for.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(500, "", message, Value::Null)
    }

    /// 503
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message, Value::Null)
    }

    /// 507: the disks are too full for it. Kubernetes has neither code nor reason for it; the reason is ours.
    pub fn insufficient_storage(message: impl Into<String>) -> Self {
        Self::new(507, "InsufficientStorage", message, Value::Null)
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StatusError {}

const OBJECT_MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// `deployments.apps`, or `pods` in the core group.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

fn details(group: &str, kind: &str, name: &str) -> Value {
    let mut details = json!({});
    for (field, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details[field] = json!(value);
        }
    }
    details
}

fn retry(after_s: u32) -> Value {
    if after_s == 0 {
        json!({})
    } else {
        json!({"retryAfterSeconds": after_s})
    }
}

/// A string as Go's `%q` prints it.
pub fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{07}' => quoted.push_str("\\a"),
            '\u{08}' => quoted.push_str("\\b"),
            '\u{0c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{0b}' => quoted.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                quoted.push_str(&format!("\\x{:02x}", c as u32))
            }
            c if c.is_control() || (c.is_whitespace() && c != ' ') => {
                quoted.push_str(&format!("\\u{:04x}", c as u32))
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A value as Go's `json.Marshal` prints it: keys of maps sorted, `<`, `>` and `&` escaped.
pub fn go_json(value: &Value) -> String {
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    let plain = sorted.to_string();
    if plain.contains(['<', '>', '&']) {
        plain
            .replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
    } else {
        plain
    }
}

//! What validation collects, and the small checks that many fields share. Texts are Kubernetes' own, since clients show
//! and match them. A check never stops at the first finding: a person wants all of them at once.

use crate::error::FieldError;
use serde_json::{Map, Value};

/// The findings of one validation, in the order in which they were made.
#[derive(Default)]
pub struct Findings(pub Vec<FieldError>);

impl Findings {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn required(&mut self, path: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError::required(path, detail));
    }

    pub fn invalid(
        &mut self,
        path: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) {
        self.0.push(FieldError::invalid(path, value, detail));
    }

    pub fn forbidden(&mut self, path: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError::forbidden(path, detail));
    }

    pub fn duplicate(&mut self, path: impl Into<String>, value: impl Into<Value>) {
        self.0.push(FieldError::duplicate(path, value));
    }

    pub fn not_found(&mut self, path: impl Into<String>, value: impl Into<Value>) {
        self.0.push(FieldError::not_found(path, value));
    }

    /// The supported values stand in the order given: Kubernetes sorts some of them and not others.
    pub fn not_supported(
        &mut self,
        path: impl Into<String>,
        value: impl Into<Value>,
        supported: &[&str],
    ) {
        self.0
            .push(FieldError::not_supported(path, value, supported));
    }

    pub fn too_long(&mut self, path: impl Into<String>, max_bytes: usize) {
        self.0.push(FieldError::too_long(path, max_bytes));
    }

    pub fn too_many(&mut self, path: impl Into<String>, count: usize, max: usize) {
        self.0.push(FieldError::too_many(path, count, max));
    }

    /// One finding for each message about the value.
    pub fn all(&mut self, path: &str, value: &str, messages: Vec<String>) {
        for message in messages {
            self.invalid(path, value, message);
        }
    }

    /// An integer that is there must not be negative.
    pub fn not_negative(&mut self, path: impl Into<String>, value: &Value) {
        if value.as_i64().is_some_and(|number| number < 0) {
            self.invalid(path, value.clone(), NOT_NEGATIVE);
        }
    }

    /// A string out of a closed set; an absent one is `Required`.
    pub fn one_of(&mut self, path: impl Into<String>, value: &Value, supported: &[&str]) {
        match value.as_str().unwrap_or_default() {
            "" => self.required(path, ""),
            text if supported.contains(&text) => {}
            text => self.not_supported(path, text, supported),
        }
    }

    pub fn immutable(&mut self, path: impl Into<String>, old: &Value, new: &Value) {
        if old != new {
            self.invalid(path, new.clone(), IMMUTABLE);
        }
    }
}

pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub const IMMUTABLE: &str = "field is immutable";
pub const POSITIVE: &str = "must be greater than 0";

/// `must be between 1 and 65535, inclusive`
pub fn range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// The items of a list; none where there is no list.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The entries of a map; none where there is no map.
pub fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The string there, or `""`.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The map under `key`, made if it is not there; None if something else stands there (the schema has refused that before).
pub fn map_at<'a>(
    object: &'a mut Map<String, Value>,
    key: &str,
) -> Option<&'a mut Map<String, Value>> {
    let slot = object.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut()
}

/// The map at `key` of an object that may be anything.
pub fn object_at<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    map_at(object.as_object_mut()?, key)
}

/// Writes the value unless there is one already. Absent and null are the same.
pub fn set_default(object: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if object.get(key).is_none_or(Value::is_null) {
        object.insert(key.to_owned(), value.into());
    }
}

/// The same, where Go has no pointer and so `""` and 0 count as absent too.
pub fn set_default_zero(object: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    let absent = match object.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() == Some(0.0),
        Some(_) => false,
    };
    if absent {
        object.insert(key.to_owned(), value.into());
    }
}

/// Makes `object[key]` what it is in `from`: set, or absent.
pub fn take_from(from: &Value, object: &mut Value, key: &str) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    match from.get(key) {
        Some(value) => {
            map.insert(key.to_owned(), value.clone());
        }
        None => {
            map.shift_remove(key);
        }
    }
}

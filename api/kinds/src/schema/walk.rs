//! The walk that brings a value into canonical form: a field at a time, by its type.
//!
//! It goes on after a wrong type, as Go's decoder does, for an error of a type's own reader outranks it; the first wrong type is told.

use super::decode::Converted;
use super::json::MAX_STRICT_ERRORS;
use super::{Field, Fields, Schema, Shape, Type, scalars};
use crate::error::go_quote;
use crate::quantity::Quantity;
use serde_json::{Map, Value, json};

/// In whose words a wrong type is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Words {
    /// Kubernetes' JSON decoder.
    #[default]
    Json,
    /// Its converter of unstructured objects.
    Unstructured,
}

/// Brings a value into the canonical form of its schema; the error is the first wrong type.
pub(super) fn walk(
    schema: &'static Schema,
    value: Value,
    words: Words,
) -> Result<Converted, String> {
    let mut walk = Walk {
        words,
        ..Walk::default()
    };
    let value = match (&schema.shape, value) {
        (Shape::Struct(fields), Value::Object(map)) => walk.fields(schema, fields, map)?,
        (Shape::Struct(_), other) => {
            return Err(format!(
                "json: cannot unmarshal {} into Go value of type {}",
                name_of(&other),
                schema.go_name()
            ));
        }
        (_, other) => other,
    };
    match walk.saved {
        Some(error) => Err(error),
        None => Ok(Converted {
            value,
            strict: walk.strict,
        }),
    }
}

/// What Go calls a JSON value in a type error.
pub(crate) fn name_of(value: &Value) -> &'static str {
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
    words: Words,
}

impl Walk {
    fn fields(
        &mut self,
        schema: &'static Schema,
        fields: &'static Fields,
        map: Map<String, Value>,
    ) -> Result<Value, String> {
        let outer = std::mem::replace(&mut self.owner, schema.short_name());
        let mut slots: Vec<Option<Value>> = vec![None; fields.list.len()];
        for (key, value) in map {
            let length = self.enter_key(&key);
            match fields.index.get(&key) {
                None if self.strict.len() < MAX_STRICT_ERRORS => self
                    .strict
                    .push(format!("unknown field {}", go_quote(&self.path))),
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
                Some(value) if !is_omitted(field, &value) => {
                    object.insert(field.name.clone(), value)
                }
                _ if field.always => object.insert(
                    field.name.clone(),
                    if field.pointer {
                        Value::Null
                    } else {
                        zero(&field.ty)
                    },
                ),
                _ => None,
            };
        }
        Ok(Value::Object(object))
    }

    /// None where the value is null or of a wrong type, which is saved. Err is what ends the reading at once.
    fn value(
        &mut self,
        ty: &'static Type,
        go: Option<&str>,
        value: Value,
    ) -> Result<Option<Value>, String> {
        let value = match (ty, value) {
            (_, Value::Null) => return Ok(None),
            (Type::Any, value) => value,
            (Type::String, Value::String(text)) => Value::String(text),
            (Type::Bool, Value::Bool(value)) => Value::Bool(value),
            (Type::Bytes, Value::String(text)) => match scalars::bytes(&text) {
                Ok(text) => Value::String(text),
                Err(error) => {
                    self.saved.get_or_insert(error);
                    return Ok(None);
                }
            },
            (Type::Double, Value::Number(number)) => Value::Number(number),
            (Type::Int32 | Type::Int64, Value::Number(number)) => match number.as_i64() {
                Some(whole) if *ty == Type::Int64 || i32::try_from(whole).is_ok() => {
                    Value::Number(number)
                }
                _ => {
                    self.wrong_type(&format!("number {number}"), &Value::Number(number), ty, go);
                    return Ok(None);
                }
            },
            (Type::List(element), Value::Array(items)) => self.list(element, go, items)?,
            (Type::Map(element), Value::Object(map)) => self.map(element, go, map)?,
            (Type::Named(_), value) => {
                let schema = ty.schema().expect(
                    "a named type has its schema: the table resolves names when it is read",
                );
                return self.named(schema, ty, go, value);
            }
            (_, other) => {
                self.wrong_type(name_of(&other), &other, ty, go);
                return Ok(None);
            }
        };
        Ok(Some(value))
    }

    fn list(
        &mut self,
        element: &'static Type,
        go: Option<&str>,
        items: Vec<Value>,
    ) -> Result<Value, String> {
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

    fn map(
        &mut self,
        element: &'static Type,
        go: Option<&str>,
        map: Map<String, Value>,
    ) -> Result<Value, String> {
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

    fn named(
        &mut self,
        schema: &'static Schema,
        ty: &'static Type,
        go: Option<&str>,
        value: Value,
    ) -> Result<Option<Value>, String> {
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
                Value::String(
                    Quantity::parse(&text)
                        .map_err(|error| error.to_string())?
                        .to_string(),
                )
            }
            (Shape::IntOrString, Value::String(text)) => Value::String(text),
            (Shape::IntOrString, Value::Number(number))
                if number
                    .as_i64()
                    .is_some_and(|number| i32::try_from(number).is_ok()) =>
            {
                Value::Number(number)
            }
            (Shape::IntOrString, Value::Number(number)) => {
                return Err(self.type_error(&format!("number {number}"), "int32"));
            }
            (Shape::IntOrString, other) => return Err(self.type_error(name_of(&other), "int32")),
            (Shape::Time | Shape::MicroTime, Value::String(text)) => {
                match scalars::time(&text, matches!(schema.shape, Shape::MicroTime))? {
                    Some(text) => Value::String(text),
                    None => return Ok(None),
                }
            }
            (Shape::Time | Shape::MicroTime, other) => {
                return Err(self.type_error(name_of(&other), "string"));
            }
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
            self.saved = Some(if self.words == Words::Unstructured {
                converter_error(found, ty, &go)
            } else {
                self.type_error(shown, &go)
            });
        }
    }

    fn type_error(&self, found: &str, go: &str) -> String {
        format!(
            "json: cannot unmarshal {found} into Go struct field {}.{} of type {go}",
            self.owner,
            self.stack.join(".")
        )
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
        (Type::String, "int64") | (Type::Int32 | Type::Int64, "int64" | "float64") => {
            format!("cannot convert {kind} to {go}")
        }
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
        (Type::String | Type::Bytes, Value::String(text)) => text.is_empty(),
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
                    let zero = |field: &'static Field| {
                        if field.pointer {
                            Value::Null
                        } else {
                            zero(&field.ty)
                        }
                    };
                    Value::Object(
                        always
                            .map(|field| (field.name.clone(), zero(field)))
                            .collect(),
                    )
                }
                Shape::Quantity => json!("0"),
                Shape::IntOrString => json!(0),
                Shape::Time | Shape::MicroTime | Shape::Any => Value::Null,
            },
            None => Value::Null,
        },
    }
}

//! Strategic merge patch: a merge patch that knows the schema, so that lists merge by key.
//!
//! Directives: `$patch` replaces or deletes a map or an item, `$retainKeys` names what of a union stays, `$setElementOrder/f` orders
//! the list f, `$deleteFromPrimitiveList/f` takes values out of it. What the patch brings comes before what it does not know,
//! unless an order is given; the rest keeps its place. Source: k8s.io/apimachinery `strategicpatch` and KEP "preserve order".

#[cfg(test)]
mod tests;

use super::go_value;
use crate::error::{FieldError, StatusError, go_quote};
use crate::schema::decode::{Converted, FieldValidation, convert_as_unstructured, strict_error};
use crate::schema::walk::name_of;
use crate::schema::{Field, Schema, Shape, Type, json};
use serde_json::{Map, Value};

type Object = Map<String, Value>;

pub fn patch(
    schema: &'static Schema,
    current: &Value,
    body: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), StatusError> {
    let parsed = json::parse(body).map_err(StatusError::bad_request)?;
    let Value::Object(patch) = parsed.value else {
        let found = name_of(&parsed.value);
        return Err(StatusError::bad_request(format!(
            "json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        )));
    };
    let shown = go_value(&Value::Object(patch.clone()));
    let original = current.as_object().cloned().unwrap_or_default();
    let merged = merge_map(original, patch, Place::Struct(schema)).map_err(Refusal::status)?;
    let refuse = |error: String| {
        StatusError::invalid(
            "",
            "",
            "",
            [FieldError::invalid("patch", shown.as_str(), error)],
        )
    };
    let Converted { value, strict } =
        convert_as_unstructured(schema, Value::Object(merged)).map_err(refuse)?;
    let mut complaints: Vec<String> = parsed
        .duplicates
        .iter()
        .map(|path| format!("duplicate field {}", go_quote(path)))
        .collect();
    complaints.extend(strict);
    match validation {
        FieldValidation::Ignore => Ok((value, Vec::new())),
        FieldValidation::Strict if !complaints.is_empty() => Err(refuse(strict_error(&complaints))),
        _ => Ok((value, complaints)),
    }
}

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";

/// Why a patch can't be applied: each is another status in kube-apiserver.
enum Refusal {
    /// 400
    Malformed(&'static str),
    /// 422
    Unprocessable,
    /// 500 with the text
    Failed(String),
}

impl Refusal {
    fn status(self) -> StatusError {
        match self {
            Self::Malformed(text) => StatusError::bad_request(text),
            Self::Unprocessable => StatusError::unprocessable(),
            Self::Failed(text) => StatusError::unknown(text),
        }
    }
}

const BAD_PRIMITIVE_LIST: Refusal = Refusal::Malformed("invalid patch format of primitive list");
const BAD_RETAIN_KEYS: Refusal = Refusal::Malformed("invalid patch format of retainKeys");
const BAD_ORDER: Refusal = Refusal::Malformed("invalid patch format of setElementOrder list");

/// Where in the schema a map stands.
#[derive(Clone, Copy)]
enum Place {
    Struct(&'static Schema),
    /// A map whose values are all of one type.
    Map(&'static Type),
    /// Beyond the schema.
    Free,
}

/// How a field's list or map is merged.
struct Rule {
    place: Place,
    merges: bool,
    replaces: bool,
    /// Empty where the items are no maps.
    key: String,
}

impl Place {
    fn of(ty: &'static Type) -> Self {
        match ty {
            Type::Map(element) => Self::Map(element),
            Type::List(element) => Self::of(element),
            _ => match ty.schema() {
                Some(schema) if matches!(schema.shape, Shape::Struct(_)) => Self::Struct(schema),
                _ => Self::Free,
            },
        }
    }

    fn rule(self, name: &str) -> Result<Rule, Refusal> {
        let plain = |place| Rule {
            place,
            merges: false,
            replaces: false,
            key: String::new(),
        };
        match self {
            Self::Free => Ok(plain(Self::Free)),
            Self::Map(element) => Ok(plain(Self::of(element))),
            Self::Struct(schema) => schema.field(name).map(Rule::of).ok_or_else(|| {
                let text = format!(
                    "unable to find api field in struct {} for the json field {}",
                    schema.short_name(),
                    go_quote(name)
                );
                Refusal::Failed(text)
            }),
        }
    }

    fn name(self) -> &'static str {
        if let Self::Struct(schema) = self {
            schema.short_name()
        } else {
            ""
        }
    }
}

impl Rule {
    fn of(field: &'static Field) -> Self {
        Self {
            place: Place::of(&field.ty),
            merges: field.merges,
            replaces: field.replaces,
            key: field.merge_key.clone().unwrap_or_default(),
        }
    }
}

fn merge_map(mut original: Object, mut patch: Object, place: Place) -> Result<Object, Refusal> {
    if let Some(directive) = patch.get(PATCH) {
        return match directive.as_str() {
            Some("replace") => {
                patch.shift_remove(PATCH);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(&patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered(&mut original, &mut patch, place)?;
    for (key, value) in patch {
        let (name, deletes) = match key.starts_with(DELETE_FROM) {
            true => (
                directive_field(&key, DELETE_FROM)
                    .ok_or(BAD_PRIMITIVE_LIST)?
                    .to_owned(),
                true,
            ),
            false => (key, false),
        };
        if value.is_null() {
            original.shift_remove(&name);
            continue;
        }
        let merged = match (original.get_mut(&name).map(Value::take), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let rule = place.rule(&name)?;
                Some(Value::Object(if rule.replaces {
                    new
                } else {
                    merge_map(old, new, rule.place)?
                }))
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let rule = place.rule(&name)?;
                Some(Value::Array(if rule.merges || deletes {
                    merge_list(old, new, &rule, deletes)?
                } else {
                    new
                }))
            }
            (old, _) if deletes => old,
            (_, mut new) => {
                drop_nulls(&mut new);
                without_directives(new)
            }
        };
        match merged {
            Some(value) => {
                original.insert(name, value);
            }
            None => {
                original.shift_remove(&name);
            }
        }
    }
    Ok(original)
}

/// `$retainKeys`: what it does not name goes, and the patch may bring nothing else.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Refusal> {
    let Some(retained) = patch.shift_remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(retained) = retained else {
        return Err(BAD_RETAIN_KEYS);
    };
    let named = |key: &str| retained.iter().any(|name| name == key);
    let directive = |key: &str| key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
    if patch
        .iter()
        .any(|(key, value)| !value.is_null() && !directive(key) && !named(key))
    {
        return Err(BAD_RETAIN_KEYS);
    }
    original.retain(|key, _| named(key));
    Ok(())
}

/// Merges each list that comes with an order, and puts it in that order.
fn merge_ordered(original: &mut Object, patch: &mut Object, place: Place) -> Result<(), Refusal> {
    let orders: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(SET_ORDER))
        .cloned()
        .collect();
    for directive in orders {
        let order = match patch.shift_remove(&directive) {
            Some(Value::Array(order)) => order,
            other => return Err(expected("[]interface {}", &other.unwrap_or_default())),
        };
        let name = directive_field(&directive, SET_ORDER).ok_or(BAD_ORDER)?;
        let (old, new) = (taken_list(original, name)?, taken_list(patch, name)?);
        let rule = place.rule(name)?;
        check_order(new.as_deref().unwrap_or_default(), &order, &rule.key)?;
        let server_order = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => new.into_iter().filter_map(without_directives).collect(),
            (Some(old), Some(new)) if rule.merges => merge_list(old, new, &rule, false)?,
            (Some(_), Some(new)) => new,
        };
        let (patched, others) = partition(merged, &order, &rule.key)?;
        original.insert(
            name.to_owned(),
            Value::Array(in_order(patched, others, &order, &server_order, &rule.key)?),
        );
    }
    Ok(())
}

fn taken_list(map: &mut Object, name: &str) -> Result<Option<Vec<Value>>, Refusal> {
    match map.get_mut(name).map(Value::take) {
        None => Ok(None),
        Some(Value::Array(list)) => {
            map.shift_remove(name);
            Ok(Some(list))
        }
        Some(other) => Err(expected("[]interface {}", &other)),
    }
}

/// The items of the patch must stand in the order, and in that sequence.
fn check_order(patch: &[Value], order: &[Value], key: &str) -> Result<(), Refusal> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut wanted = patch
        .iter()
        .filter(|item| item.get(PATCH).is_none())
        .peekable();
    for item in order {
        let Some(next) = wanted.peek() else {
            return Ok(());
        };
        if identity(next, key)? == identity(item, key)? {
            wanted.next();
        }
    }
    if wanted.peek().is_none() {
        return Ok(());
    }
    let show = |list: &[Value]| go_value(&Value::Array(list.to_vec()));
    Err(Refusal::Failed(format!(
        "The order in patch list:\n{}\n doesn't match {SET_ORDER} list:\n{}\n",
        show(patch),
        show(order)
    )))
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    rule: &Rule,
    deletes: bool,
) -> Result<Vec<Value>, Refusal> {
    let Some(first) = original.first().or(patch.first()) else {
        return Ok(original);
    };
    if original.iter().chain(&patch).any(Value::is_array) {
        return Err(Refusal::Unprocessable);
    }
    if !first.is_object() {
        if deletes {
            return Ok(original
                .into_iter()
                .filter(|item| !patch.contains(item))
                .collect());
        }
        let mut merged = Vec::new();
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        let (patched, others) = partition(merged, &patch, "")?;
        return in_order(patched, others, &patch, &original, "");
    }
    if rule.key.is_empty() {
        return Err(Refusal::Failed(format!(
            "cannot merge lists without merge key for {}",
            rule.place.name()
        )));
    }
    let (original, patch) = directives(original, patch, &rule.key)?;
    let mut merged = original.clone();
    for item in &patch {
        let key = identity(item, &rule.key)?;
        let place = merged
            .iter()
            .position(|other| other.get(&rule.key) == Some(key));
        match (place, item) {
            (Some(place), Value::Object(new)) => {
                let old = merged[place].as_object().cloned().unwrap_or_default();
                merged[place] = Value::Object(merge_map(old, new.clone(), rule.place)?);
            }
            _ => merged.push(item.clone()),
        }
    }
    let (patched, others) = partition(merged, &patch, &rule.key)?;
    in_order(patched, others, &patch, &original, &rule.key)
}

/// Carries out the items that are directives; gives what is left of both lists.
fn directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Refusal> {
    let (mut plain, mut replace) = (Vec::new(), false);
    for item in patch {
        let Value::Object(map) = &item else {
            return Err(expected("map[string]interface {}", &item));
        };
        match map.get(PATCH).map(|directive| directive.as_str()) {
            None => plain.push(item),
            Some(Some("delete")) => {
                let gone = identity(&item, key)?.clone();
                original.retain(|other| other.get(key) != Some(&gone));
            }
            Some(Some("replace")) => replace = true,
            Some(Some("merge")) => {
                return Err(Refusal::Failed(
                    "merging lists cannot yet be specified in the patch".into(),
                ));
            }
            Some(_) => return Err(unknown_directive(map)),
        }
    }
    Ok(if replace {
        (plain, Vec::new())
    } else {
        (original, plain)
    })
}

/// The items that are in `by`, and the others.
fn partition(
    list: Vec<Value>,
    by: &[Value],
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Refusal> {
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for item in list {
        let id = identity(&item, key)?;
        let found = by.iter().any(|other| {
            if key.is_empty() {
                other == id
            } else {
                other.get(key) == Some(id)
            }
        });
        if found {
            inside.push(item)
        } else {
            outside.push(item)
        }
    }
    Ok((inside, outside))
}

/// The patch's items in the patch's order, the server's own in the server's; an own item comes before a patched one only
/// where the server had it so.
fn in_order(
    mut patched: Vec<Value>,
    mut others: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    key: &str,
) -> Result<Vec<Value>, Refusal> {
    for item in order.iter().chain(server_order) {
        identity(item, key)?;
    }
    let place = |list: &[Value], item: &Value| {
        let id = if key.is_empty() {
            Some(item)
        } else {
            item.get(key)
        };
        list.iter().position(|other| {
            if key.is_empty() {
                Some(other) == id
            } else {
                other.get(key) == id
            }
        })
    };
    patched.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(server_order, item));
    let mut all = Vec::with_capacity(patched.len() + others.len());
    let (mut patched, mut others) = (
        patched.into_iter().peekable(),
        others.into_iter().peekable(),
    );
    while let (Some(next), Some(other)) = (patched.peek(), others.peek()) {
        let before = matches!((place(server_order, other), place(server_order, next)), (Some(other), Some(next)) if other < next);
        all.extend(if before {
            others.next()
        } else {
            patched.next()
        });
    }
    all.extend(patched);
    all.extend(others);
    Ok(all)
}

/// What an item is known by: its merge key's value, or itself where there is none.
fn identity<'a>(item: &'a Value, key: &str) -> Result<&'a Value, Refusal> {
    if key.is_empty() {
        return Ok(item);
    }
    if !item.is_object() {
        return Err(expected("map[string]interface {}", item));
    }
    item.get(key).ok_or_else(|| {
        Refusal::Failed(format!(
            "map: {} does not contain declared merge key: {key}",
            go_value(item)
        ))
    })
}

/// `$setElementOrder/containers` -> `containers`
fn directive_field<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    key.strip_prefix(prefix)?.strip_prefix('/')
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// A value that is only in the patch, without its directives; None where it is a directive itself.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => Some(Value::Object(
            map.into_iter()
                .filter_map(|(key, value)| Some((key, without_directives(value)?)))
                .collect(),
        )),
        Value::Array(items) => Some(Value::Array(
            items.into_iter().filter_map(without_directives).collect(),
        )),
        other => Some(other),
    }
}

fn unknown_directive(map: &Object) -> Refusal {
    let directive = map.get(PATCH).map(go_value).unwrap_or_default();
    Refusal::Failed(format!(
        "unknown patch type: {directive} in map: {}",
        go_value(&Value::Object(map.clone()))
    ))
}

fn expected(go: &str, found: &Value) -> Refusal {
    let found = match found {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    Refusal::Failed(format!("expected a {go}, but received a {found}"))
}

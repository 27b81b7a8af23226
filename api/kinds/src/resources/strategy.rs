//! The steps that a write takes through a kind's hooks, in Kubernetes' order: metadata, prepare, validate, warn.
//! The object comes with schema defaults and the kind's own (`hooks.default`) already in it.
//! Nothing here stores, authorizes or looks at another object: that is the server's.

use super::checks::{object_at, take_from};
use super::metadata;
use crate::error::{FieldError, StatusError};
use crate::kind::{Checked, Context, Kind};
use serde_json::{Value, json};

/// Makes the object one that can be created. Gives the warnings to answer with.
pub fn create(kind: &Kind, object: &mut Value, context: &Context) -> Checked<Vec<String>> {
    metadata::prepare_create(kind, object, context);
    (kind.hooks.prepare_create)(object, context);
    let mut errors = metadata::validate(kind, object);
    errors.extend((kind.hooks.validate)(object));
    refuse(kind, object, errors)?;
    Ok((kind.hooks.warnings)(None, object))
}

/// Makes `new` what may follow `old` through the object's own path.
pub fn update(
    kind: &Kind,
    old: &Value,
    new: &mut Value,
    context: &Context,
) -> Checked<Vec<String>> {
    metadata::prepare_update(old, new);
    (kind.hooks.prepare_update)(old, new, context);
    let mut errors = metadata::validate_update(old, new);
    // Kubernetes asks this twice, once for all kinds and once in each kind's own validation, and clients see both causes.
    errors.extend(metadata::validate_update(old, new));
    errors.extend(metadata::validate(kind, new));
    errors.extend((kind.hooks.validate)(new));
    errors.extend((kind.hooks.validate_update)(old, new));
    refuse(kind, new, errors)?;
    Ok((kind.hooks.warnings)(Some(old), new))
}

/// The same through `…/status`.
pub fn update_status(
    kind: &Kind,
    old: &Value,
    new: &mut Value,
    context: &Context,
) -> Checked<Vec<String>> {
    metadata::prepare_update(old, new);
    (kind.hooks.prepare_status)(old, new, context);
    let mut errors = metadata::validate_update(old, new);
    // Kubernetes asks this twice, once for all kinds and once in each kind's own validation, and clients see both causes.
    errors.extend(metadata::validate_update(old, new));
    errors.extend(metadata::validate(kind, new));
    errors.extend((kind.hooks.validate_status)(old, new));
    refuse(kind, new, errors)?;
    Ok(Vec::new())
}

/// A deletion that does not end at once begins: what that changes in the body. Not to be called again when the grace is only
/// shortened, for the generation counts the decision and not its haste.
pub fn begin_delete(kind: &Kind, object: &mut Value) {
    if kind.generation {
        let generation = object["metadata"]["generation"]
            .as_i64()
            .unwrap_or_default()
            + 1;
        if let Some(metadata) = object_at(object, "metadata") {
            metadata.insert("generation".to_owned(), json!(generation));
        }
    }
    (kind.hooks.begin_delete)(object);
}

/// For `prepare_status`: all but `status`, `metadata` and the type is as it was.
pub fn keep_all_but_status(old: &Value, new: &mut Value) {
    keep_all_but(old, new, &["apiVersion", "kind", "metadata", "status"]);
}

/// All but these top fields is as it was.
pub fn keep_all_but(old: &Value, new: &mut Value, but: &[&str]) {
    let keys: Vec<String> = [old, &*new]
        .iter()
        .flat_map(|object| {
            object
                .as_object()
                .into_iter()
                .flat_map(|map| map.keys().cloned())
        })
        .filter(|key| !but.contains(&key.as_str()))
        .collect();
    for key in keys {
        take_from(old, new, &key);
    }
}

/// For `prepare_update` of a kind with a status: it is as it was.
pub fn keep_status(old: &Value, new: &mut Value) {
    take_from(old, new, "status");
}

/// For `prepare_update` of a kind with a generation: one more if the desired state is another.
pub fn count_generation(old: &Value, new: &mut Value, changed: bool) {
    if changed {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
        if let Some(metadata) = object_at(new, "metadata") {
            metadata.insert("generation".to_owned(), json!(generation));
        }
    }
}

fn refuse(kind: &Kind, object: &Value, errors: Vec<FieldError>) -> Checked<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Err(StatusError::invalid(kind.group, kind.kind, name, &errors))
}

//! Server-side apply: a configuration is merged into the object, its manager owns what it names, and what it no longer names goes
//! unless somebody else owns it.
//!
//! A field that another manager owns and the configuration would change is a conflict, unless forced. kubectl's own manager takes over
//! from its client-side applies without one, as far as the last-applied annotation says what it had applied.
//! Source: KEP-555; structured-merge-diff `merge`; k8s.io/apimachinery `managedfields`.

#[cfg(test)]
mod tests;

use super::fields::{Element, Set, path_text};
use super::managed::{self, Entry, Id, Managers};
use super::typed::Node;
use super::typed::{check, compare, merge as merging, paths};
use crate::error::{StatusError, go_quote};
use crate::schema::decode::{Converted, FieldValidation, convert, empty};
use crate::schema::walk::name_of;
use crate::schema::{Schema, yaml};
use serde_json::{Value, json};
use std::borrow::Cow;

/// What an apply says beside its body.
#[derive(Clone, Copy, Debug)]
pub struct Apply<'a> {
    /// The `fieldManager`: never empty, the caller sees to it.
    pub manager: &'a str,
    pub force: bool,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339.
    pub now: &'a str,
    pub validation: FieldValidation,
}

/// Applies a body, YAML or JSON, to the object as it is stored, or to nothing. Gives the object in canonical form, before
/// defaults, with its `managedFields`, and warnings. Where all is as it was, what comes out equals what went in.
pub fn apply(
    schema: &'static Schema,
    live: Option<&Value>,
    body: &[u8],
    apply: Apply<'_>,
) -> Result<(Value, Vec<String>), StatusError> {
    let (config, repeated) = yaml::parse(body)
        .map_err(|error| StatusError::bad_request(format!("error decoding YAML: {error}")))?;
    check_kind(schema, &config)?;
    if config
        .pointer("/metadata/managedFields")
        .is_some_and(|entries| !entries.is_null())
    {
        return Err(StatusError::bad_request(
            "metadata.managedFields must be nil",
        ));
    }
    let node = Node::root(schema);
    if let Some(misfit) = check::misfit(node, &config) {
        let text = format!(
            "failed to create typed patch object ({}): {misfit}",
            title(schema, &config)
        );
        return Err(StatusError::unknown(text));
    }
    let mut object = live.map_or_else(|| empty(schema), Value::clone);
    let entries = managed::take(&mut object);
    let decoded = Managers::decode(entries.as_ref());
    let mut managers = decoded.map_err(|error| {
        StatusError::unknown(format!("failed to decode managed fields: {error}"))
    })?;
    if managers.entries.is_empty() && live.is_some() {
        managers = before_first_apply(schema, &object, apply);
    }
    let mut outcome = merge(
        schema,
        &object,
        &config,
        managers.clone(),
        apply,
        apply.force,
    );
    if let (Err(conflicts), "kubectl") = (&outcome, apply.manager)
        && let Some(own) = last_applied(schema, &object)
    {
        let foreign = conflicts.iter().filter(|conflict| !own.has(&conflict.path));
        let foreign: Vec<Conflict> = foreign.cloned().collect();
        outcome = if foreign.is_empty() {
            merge(schema, &object, &config, managers, apply, true)
        } else {
            Err(foreign)
        };
    }
    let (mut merged, managers) = outcome.map_err(|conflicts| refusal(&conflicts))?;
    if apply.manager == "kubectl" {
        refresh_last_applied(&mut merged, &config);
    }
    let failed = |error: String| {
        StatusError::unknown(format!(
            "failed to convert new typed object ({}) to object: {error}",
            title(schema, &config)
        ))
    };
    let Converted { mut value, .. } = convert(schema, merged).map_err(failed)?;
    value["apiVersion"] = json!(managed::api_version(schema));
    value["kind"] = json!(schema.gvk.as_ref().map_or("", |gvk| gvk.2.as_str()));
    managers.write(&mut value);
    match apply.validation {
        FieldValidation::Strict if !repeated.is_empty() => Err(StatusError::bad_request(format!(
            "error strict decoding patch: {}",
            repeated.join(", ")
        ))),
        FieldValidation::Ignore => Ok((value, Vec::new())),
        _ => Ok((value, repeated)),
    }
}

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// All of an object's annotations together may be no larger.
const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

/// A field that another manager owns, and that would change.
#[derive(Clone, Debug)]
struct Conflict {
    owner: Id,
    path: Vec<Element>,
}

/// The body must be of the very kind and version.
fn check_kind(schema: &Schema, config: &Value) -> Result<(), StatusError> {
    let Some(map) = config.as_object() else {
        let found = name_of(config);
        let text = format!(
            "error decoding patch: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        );
        return Err(StatusError::bad_request(text));
    };
    let text = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion")
        .rsplit_once('/')
        .unwrap_or(("", text("apiVersion")));
    let found = (
        group.to_owned(),
        version.to_owned(),
        text("kind").to_owned(),
    );
    if schema.gvk.as_ref() == Some(&found) {
        return Ok(());
    }
    Err(StatusError::bad_request(format!(
        "invalid object type: {group}/{version}, Kind={}",
        found.2
    )))
}

/// `namespace/name; group/version, Kind=Kind`
fn title(schema: &Schema, config: &Value) -> String {
    let text = |field: &str| config["metadata"][field].as_str().unwrap_or_default();
    let (group, version, kind) = schema.gvk.clone().unwrap_or_default();
    format!(
        "{}/{}; {group}/{version}, Kind={kind}",
        text("namespace"),
        text("name")
    )
}

/// An object that was never tracked: what it has belongs to a manager made up for it.
fn before_first_apply(schema: &'static Schema, object: &Value, apply: Apply<'_>) -> Managers {
    let mut tracked = object.clone();
    managed::update(
        schema,
        None,
        &mut tracked,
        "before-first-apply",
        apply.subresource,
        apply.now,
    );
    Managers::decode(tracked.pointer("/metadata/managedFields")).unwrap_or_default()
}

/// The merged object and who owns it then, or the conflicts.
fn merge(
    schema: &'static Schema,
    live: &Value,
    config: &Value,
    mut managers: Managers,
    apply: Apply<'_>,
    force: bool,
) -> Result<(Value, Managers), Vec<Conflict>> {
    let (node, id) = (
        Node::root(schema),
        Id::apply(apply.manager, apply.subresource),
    );
    managers
        .entries
        .retain(|_, entry| managed::is_known(schema, &entry.api_version));
    let reset = managed::reset_fields(schema, apply.subresource);
    let set = paths::field_set(node, config).recursive_difference(&reset);
    let last = managers.entries.get(&id).cloned();
    let own = Entry {
        set,
        api_version: managed::api_version(schema),
        time: last.as_ref().and_then(|entry| entry.time.clone()),
    };
    managers.entries.insert(id.clone(), own);
    let mut merged = merging::merge(node, live, config);
    if let Some(last) = last.filter(|last| !last.set.is_empty()) {
        merged = prune(node, merged, &managers, &last.set);
    }
    let comparison = compare::compare(node, live, &merged).without(&reset);
    let changed = comparison.modified.union(&comparison.added);
    let contested: Vec<(Id, Set)> = managers
        .entries
        .iter()
        .filter(|(owner, _)| **owner != id)
        .map(|(owner, entry)| (owner.clone(), entry.set.intersection(&changed)))
        .filter(|(_, set)| !set.is_empty())
        .collect();
    if !force && !contested.is_empty() {
        let conflicts = |(owner, set): (Id, Set)| {
            set.paths().into_iter().map(move |path| Conflict {
                owner: owner.clone(),
                path,
            })
        };
        return Err(contested.into_iter().flat_map(conflicts).collect());
    }
    for (owner, entry) in &mut managers.entries {
        if *owner != id {
            entry.set = entry
                .set
                .difference(&changed)
                .difference(&comparison.removed);
        }
    }
    if let Some(own) = managers.entries.get_mut(&id) {
        own.set = own.set.difference(&managed::stripped());
        if *live != merged {
            own.time = Some(apply.now.to_owned());
        }
    }
    managers.entries.retain(|_, entry| !entry.set.is_empty());
    Ok((merged, managers))
}

/// Takes out what the manager applied last time and no longer does, but what another owns, or what lies in something that it never owned.
fn prune(node: Node, merged: Value, managers: &Managers, last: &Set) -> Value {
    let named = |set: &Set| paths::with_named_parents(set, node);
    let (last, all) = (named(last), named(&paths::field_set(node, &merged)));
    let pruned = merging::remove(node, &merged, &last);
    let owned = managers
        .entries
        .values()
        .fold(Set::default(), |owned, entry| owned.union(&entry.set));
    let left = named(&paths::field_set(node, &pruned)).union(&named(&owned));
    let pruned = merging::remove(node, &merged, &all.difference(&left));
    let left = named(&paths::field_set(node, &pruned));
    merging::remove(node, &merged, &all.difference(&left).intersection(&last))
}

/// What kubectl's client-side apply put there and is still as it was.
fn last_applied(schema: &'static Schema, live: &Value) -> Option<Set> {
    let text = live["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .filter(|text| !text.is_empty())?;
    let config: Value = serde_json::from_str(text).ok()?;
    let node = Node::root(schema);
    if config["apiVersion"] != managed::api_version(schema).as_str()
        || check::misfit(node, &config).is_some()
    {
        return None;
    }
    let comparison = compare::compare(node, &config, live);
    let set = paths::field_set(node, &config);
    Some(
        set.difference(&comparison.modified)
            .difference(&comparison.added)
            .difference(&comparison.removed),
    )
}

/// Keeps the annotation true for those who go back to client-side apply.
fn refresh_last_applied(merged: &mut Value, config: &Value) {
    let there = merged["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .is_some_and(|text| !text.is_empty());
    if !there {
        return;
    }
    let mut config = Cow::Borrowed(config);
    let carried = config.pointer("/metadata/annotations");
    if carried.is_some_and(|annotations| annotations.get(LAST_APPLIED).is_some())
        && let Some(Value::Object(annotations)) =
            config.to_mut().pointer_mut("/metadata/annotations")
    {
        annotations.shift_remove(LAST_APPLIED);
    }
    let Some(annotations) = merged["metadata"]["annotations"].as_object_mut() else {
        return;
    };
    annotations.insert(
        LAST_APPLIED.into(),
        json!(crate::error::go_json(&config) + "\n"),
    );
    let size: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > MAX_ANNOTATIONS_BYTES {
        annotations.shift_remove(LAST_APPLIED);
    }
}

fn owner_text(id: &Id) -> String {
    let mut text = go_quote(&id.manager);
    if !id.subresource.is_empty() {
        text.push_str(&format!(" with subresource {}", go_quote(&id.subresource)));
    }
    if !id.applies {
        text.push_str(&format!(" using {}", id.api_version));
    }
    text
}

fn refusal(conflicts: &[Conflict]) -> StatusError {
    let cause = |conflict: &Conflict| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {}", owner_text(&conflict.owner)), "field": path_text(&conflict.path)});
    let message = match conflicts {
        [one] => format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            owner_text(&one.owner),
            path_text(&one.path)
        ),
        several => {
            let mut lines: Vec<String> = Vec::new();
            let mut owner: Option<&Id> = None;
            for conflict in several {
                if owner != Some(&conflict.owner) {
                    lines.push(format!("conflicts with {}:", owner_text(&conflict.owner)));
                    owner = Some(&conflict.owner);
                }
                lines.push(format!("- {}", path_text(&conflict.path)));
            }
            format!(
                "Apply failed with {} conflicts: {}",
                several.len(),
                lines.join("\n")
            )
        }
    };
    StatusError::new(
        409,
        "Conflict",
        message,
        json!({"causes": conflicts.iter().map(cause).collect::<Value>()}),
    )
}

//! Server-side apply: a configuration is merged into the object, its manager owns what it names, and what it no longer names goes
//! unless somebody else owns it.
//!
//! A field that another manager owns and the configuration would change is a conflict, unless forced. kubectl's own manager takes over
//! from its client-side applies without one, as far as the last-applied annotation says what it had applied.
//! Source: KEP-555; structured-merge-diff `merge`; k8s.io/apimachinery `managedfields`.

use super::fields::{Element, Set, path_text};
use super::managed::{self, Entry, Id, Managers};
use super::typed::{self, Node};
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
pub fn apply(schema: &'static Schema, live: Option<&Value>, body: &[u8], apply: Apply<'_>) -> Result<(Value, Vec<String>), StatusError> {
    let (config, repeated) =
        yaml::parse(body).map_err(|error| StatusError::bad_request(format!("error decoding YAML: {error}")))?;
    check_kind(schema, &config)?;
    if config.pointer("/metadata/managedFields").is_some_and(|entries| !entries.is_null()) {
        return Err(StatusError::bad_request("metadata.managedFields must be nil"));
    }
    let node = Node::root(schema);
    if let Some(misfit) = typed::misfit(node, &config) {
        let text = format!("failed to create typed patch object ({}): {misfit}", title(schema, &config));
        return Err(StatusError::unknown(text));
    }
    let mut object = live.map_or_else(|| empty(schema), Value::clone);
    let entries = managed::take(&mut object);
    let decoded = Managers::decode(entries.as_ref());
    let mut managers = decoded.map_err(|error| StatusError::unknown(format!("failed to decode managed fields: {error}")))?;
    if managers.entries.is_empty() && live.is_some() {
        managers = before_first_apply(schema, &object, apply);
    }
    let mut outcome = merge(schema, &object, &config, managers.clone(), apply, apply.force);
    if let (Err(conflicts), "kubectl") = (&outcome, apply.manager) {
        if let Some(own) = last_applied(schema, &object) {
            let others: Vec<Conflict> = conflicts.iter().filter(|conflict| !own.has(&conflict.path)).cloned().collect();
            outcome = if others.is_empty() { merge(schema, &object, &config, managers, apply, true) } else { Err(others) };
        }
    }
    let (mut merged, managers) = outcome.map_err(|conflicts| refusal(&conflicts))?;
    if apply.manager == "kubectl" {
        refresh_last_applied(&mut merged, &config);
    }
    let failed = |error: String| StatusError::unknown(format!("failed to convert new typed object ({}) to object: {error}", title(schema, &config)));
    let Converted { mut value, .. } = convert(schema, merged).map_err(failed)?;
    value["apiVersion"] = json!(managed::api_version(schema));
    value["kind"] = json!(schema.gvk.as_ref().map_or("", |gvk| gvk.2.as_str()));
    managers.write(&mut value);
    match apply.validation {
        FieldValidation::Strict if !repeated.is_empty() => {
            Err(StatusError::bad_request(format!("error strict decoding patch: {}", repeated.join(", "))))
        }
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
        let text = format!("error decoding patch: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
        return Err(StatusError::bad_request(text));
    };
    let text = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
    let found = (group.to_owned(), version.to_owned(), text("kind").to_owned());
    if schema.gvk.as_ref() == Some(&found) {
        return Ok(());
    }
    Err(StatusError::bad_request(format!("invalid object type: {group}/{version}, Kind={}", found.2)))
}

/// `namespace/name; group/version, Kind=Kind`
fn title(schema: &Schema, config: &Value) -> String {
    let text = |field: &str| config["metadata"][field].as_str().unwrap_or_default();
    let (group, version, kind) = schema.gvk.clone().unwrap_or_default();
    format!("{}/{}; {group}/{version}, Kind={kind}", text("namespace"), text("name"))
}

/// An object that was never tracked: what it has belongs to a manager made up for it.
fn before_first_apply(schema: &'static Schema, object: &Value, apply: Apply<'_>) -> Managers {
    let mut tracked = object.clone();
    managed::update(schema, None, &mut tracked, "before-first-apply", apply.subresource, apply.now);
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
    let (node, id) = (Node::root(schema), Id::apply(apply.manager, apply.subresource));
    managers.entries.retain(|_, entry| managed::is_known(schema, &entry.api_version));
    let reset = managed::reset_fields(schema, apply.subresource);
    let set = typed::field_set(node, config).recursive_difference(&reset);
    let last = managers.entries.get(&id).cloned();
    let own = Entry { set, api_version: managed::api_version(schema), time: last.as_ref().and_then(|entry| entry.time.clone()) };
    managers.entries.insert(id.clone(), own);
    let mut merged = typed::merge(node, live, config);
    if let Some(last) = last.filter(|last| !last.set.is_empty()) {
        merged = prune(node, merged, &managers, &last.set);
    }
    let comparison = typed::compare(node, live, &merged).without(&reset);
    let changed = comparison.modified.union(&comparison.added);
    let contested: Vec<(Id, Set)> = managers.entries.iter().filter(|(owner, _)| **owner != id)
        .map(|(owner, entry)| (owner.clone(), entry.set.intersection(&changed)))
        .filter(|(_, set)| !set.is_empty())
        .collect();
    if !force && !contested.is_empty() {
        let conflicts = |(owner, set): (Id, Set)| set.paths().into_iter().map(move |path| Conflict { owner: owner.clone(), path });
        return Err(contested.into_iter().flat_map(conflicts).collect());
    }
    for (owner, entry) in &mut managers.entries {
        if *owner != id {
            entry.set = entry.set.difference(&changed).difference(&comparison.removed);
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
    let named = |set: &Set| typed::with_named_parents(set, node);
    let (last, all) = (named(last), named(&typed::field_set(node, &merged)));
    let pruned = typed::remove(node, &merged, &last);
    let owned = managers.entries.values().fold(Set::default(), |owned, entry| owned.union(&entry.set));
    let left = named(&typed::field_set(node, &pruned)).union(&named(&owned));
    let pruned = typed::remove(node, &merged, &all.difference(&left));
    let left = named(&typed::field_set(node, &pruned));
    typed::remove(node, &merged, &all.difference(&left).intersection(&last))
}

/// What kubectl's client-side apply put there and is still as it was.
fn last_applied(schema: &'static Schema, live: &Value) -> Option<Set> {
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|text| !text.is_empty())?;
    let config: Value = serde_json::from_str(text).ok()?;
    let node = Node::root(schema);
    if config["apiVersion"] != managed::api_version(schema).as_str() || typed::misfit(node, &config).is_some() {
        return None;
    }
    let comparison = typed::compare(node, &config, live);
    let set = typed::field_set(node, &config);
    Some(set.difference(&comparison.modified).difference(&comparison.added).difference(&comparison.removed))
}

/// Keeps the annotation true for those who go back to client-side apply.
fn refresh_last_applied(merged: &mut Value, config: &Value) {
    let there = merged["metadata"]["annotations"][LAST_APPLIED].as_str().is_some_and(|text| !text.is_empty());
    if !there {
        return;
    }
    let mut config = Cow::Borrowed(config);
    if config.pointer("/metadata/annotations").is_some_and(|annotations| annotations.get(LAST_APPLIED).is_some()) {
        if let Some(annotations) = config.to_mut().pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            annotations.shift_remove(LAST_APPLIED);
        }
    }
    let Some(annotations) = merged["metadata"]["annotations"].as_object_mut() else { return };
    annotations.insert(LAST_APPLIED.into(), json!(crate::error::go_json(&config) + "\n"));
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
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
    let cause = |conflict: &Conflict| {
        json!({"reason": "FieldManagerConflict", "message": format!("conflict with {}", owner_text(&conflict.owner)), "field": path_text(&conflict.path)})
    };
    let message = match conflicts {
        [one] => format!("Apply failed with 1 conflict: conflict with {}: {}", owner_text(&one.owner), path_text(&one.path)),
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
            format!("Apply failed with {} conflicts: {}", several.len(), lines.join("\n"))
        }
    };
    StatusError::new(409, "Conflict", message, json!({"causes": conflicts.iter().map(cause).collect::<Value>()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(live: Option<&Value>, manager: &str, force: bool, config: &Value) -> Result<Value, StatusError> {
        let kind = config["kind"].as_str().unwrap();
        let group = if kind == "Deployment" { "apps" } else { "" };
        let schema = Schema::of_kind(group, "v1", kind).unwrap();
        let asked = Apply { manager, force, subresource: "", now: "2024-01-01T00:00:00Z", validation: FieldValidation::Strict };
        apply(schema, live, config.to_string().as_bytes(), asked).map(|(mut value, _)| {
            value["metadata"]["uid"] = json!("u");
            value
        })
    }

    fn config(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
    }

    fn owners(object: &Value) -> Value {
        let short = |entry: &Value| json!([entry["manager"], entry["fieldsV1"], entry.get("time").is_some()]);
        object["metadata"]["managedFields"].as_array().map_or(Value::Null, |entries| entries.iter().map(short).collect())
    }

    /// The scenario of two people and one ConfigMap: share, conflict, force, give up, remove.
    #[test]
    fn appliers_share_fight_and_leave() {
        let ann = applied(None, "ann", false, &config(json!({"a": "1", "b": "2"}))).unwrap();
        assert_eq!(owners(&ann), json!([["ann", {"f:data": {"f:a": {}, "f:b": {}}}, true]]));
        for (data, message) in [
            (json!({"a": "9"}), "Apply failed with 1 conflict: conflict with \"ann\": .data.a"),
            (json!({"a": "9", "b": "8"}), "Apply failed with 2 conflicts: conflicts with \"ann\":\n- .data.a\n- .data.b"),
        ] {
            assert_eq!(applied(Some(&ann), "bob", false, &config(data)).unwrap_err().message, message);
        }
        let shared = applied(Some(&ann), "bob", false, &config(json!({"a": "1"}))).unwrap();
        assert_eq!(owners(&shared), json!([["bob", {"f:data": {"f:a": {}}}, false], ["ann", {"f:data": {"f:a": {}, "f:b": {}}}, true]]));
        let forced = applied(Some(&shared), "bob", true, &config(json!({"a": "5"}))).unwrap();
        assert_eq!((&forced["data"], owners(&forced)), (&json!({"a": "5", "b": "2"}), json!([["ann", {"f:data": {"f:b": {}}}, true], ["bob", {"f:data": {"f:a": {}}}, true]])));
        let again = applied(Some(&forced), "ann", false, &config(json!({"b": "2"}))).unwrap();
        assert_eq!(again, forced, "what changes nothing is no change");
        let removed = applied(Some(&forced), "bob", false, &config(json!({}))).unwrap();
        assert_eq!((&removed["data"], owners(&removed)), (&json!({"b": "2"}), json!([["ann", {"f:data": {"f:b": {}}}, true], ["bob", {"f:data": {}}, true]])));
    }

    #[test]
    fn lists_are_owned_by_item() {
        let with = |containers: Value, replicas: i64| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"containers": containers}}}});
        let only = |containers: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": {"spec": {"containers": containers}}}});
        let names = |object: &Value| object["spec"]["template"]["spec"]["containers"].clone();
        let ann = applied(None, "ann", false, &with(json!([{"name": "a", "image": "1", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]), 0)).unwrap();
        assert_eq!(owners(&ann), json!([["ann", {"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}}}}}}}, true]]));
        let two = applied(Some(&ann), "bob", false, &only(json!([{"name": "b", "image": "1"}, {"name": "a", "ports": [{"containerPort": 81}]}]))).unwrap();
        assert_eq!(names(&two), json!([{"name": "b", "image": "1", "resources": {}}, {"name": "a", "image": "1", "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 81}], "resources": {}}]));
        let conflict = applied(Some(&two), "carl", false, &with(json!([{"name": "a", "image": "1"}]), 2)).unwrap_err();
        assert_eq!(conflict.message, "Apply failed with 1 conflict: conflict with \"ann\": .spec.replicas");
        let left = applied(Some(&two), "bob", false, &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}})).unwrap();
        assert_eq!((names(&left), owners(&left)), (names(&ann), owners(&ann)));
        let twice = applied(Some(&ann), "bob", false, &only(json!([{"name": "x"}, {"name": "x"}]))).unwrap_err();
        assert_eq!((twice.code, twice.message.as_str()), (500, "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate entries for key [name=\"x\"]"));
    }

    #[test]
    fn kubectl_takes_over_from_its_client_side_self() {
        let schema = Schema::of_kind("", "v1", "ConfigMap").unwrap();
        let last = "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"1\",\"b\":\"2\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"c\"}}\n";
        let mut live = json!({"metadata": {"name": "c", "uid": "u", "annotations": {LAST_APPLIED: last}}, "data": {"a": "1", "b": "2"}});
        managed::update(schema, None, &mut live, "kubectl-client-side-apply", "", "2023-01-01T00:00:00Z");
        let value = applied(Some(&live), "kubectl", false, &config(json!({"a": "2"}))).unwrap();
        assert_eq!(value["data"], json!({"a": "2", "b": "2"}));
        assert_eq!(value["metadata"]["annotations"][LAST_APPLIED], "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"2\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"c\"}}\n");
        let refused = applied(Some(&live), "someone", false, &config(json!({"a": "2"}))).unwrap_err();
        assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.a");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let rows = [
            ("a: [", 400, "error decoding YAML: error converting YAML to JSON: yaml: "),
            ("[]", 400, "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"),
            ("{\"apiVersion\":\"v1\",\"kind\":\"Secret\"}", 400, "invalid object type: /v1, Kind=Secret"),
            ("apiVersion: v1\nkind: ConfigMap\nmetadata: {managedFields: []}", 400, "metadata.managedFields must be nil"),
            ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndatta: {}", 500, "failed to create typed patch object (/c; /v1, Kind=ConfigMap): .datta: field not declared in schema"),
            ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: 1}", 500, "failed to create typed patch object (/c; /v1, Kind=ConfigMap): .data.a: expected string, got &value.valueUnstructured{Value:1}"),
        ];
        let schema = Schema::of_kind("", "v1", "ConfigMap").unwrap();
        let asked = Apply { manager: "m", force: false, subresource: "", now: "", validation: FieldValidation::Warn };
        for (body, code, message) in rows {
            let error = apply(schema, None, body.as_bytes(), asked).unwrap_err();
            assert!(error.code == code && error.message.starts_with(message), "{body}: {error}");
        }
    }
}

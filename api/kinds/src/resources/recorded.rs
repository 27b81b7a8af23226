//! For tests alone: what a real kube-apiserver answered, where its recordings lie beside the checkout, held against what the
//! rows and hooks make of the same bodies. And what tests of hooks share.

use super::{KINDS, by_plural, strategy};
use crate::error::{FieldError, StatusError};
use crate::kind::{Claim, Context, Kind, Want};
use crate::patch::{PatchType, patch};
use crate::schema::decode::FieldValidation;
use crate::schema::{Schema, decode, defaults};
use crate::table::{IncludeObject, single_metadata, table};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a test's request knows.
pub fn context() -> Context {
    Context {
        now: "2026-01-02T03:04:05Z".to_owned(),
        user: "admin".to_owned(),
        suffix: "x7k2m".to_owned(),
    }
}

/// The object as it comes out of decoding: canonical, with the schema's defaults and the kind's own.
pub fn decoded(kind: &Kind, mut object: Value) -> Value {
    let schema = Schema::of(kind.schema).unwrap();
    decode::canonicalise(schema, &mut object);
    defaults::default(schema, &mut object);
    (kind.hooks.default)(&mut object);
    object
}

/// Each finding as `path detail` must start like the expected one, in order.
#[track_caller]
pub fn messages(what: &str, found: Vec<FieldError>, expected: &[&str]) {
    let found: Vec<String> = found
        .into_iter()
        .map(|error| format!("{} {}", error.path, error.detail))
        .collect();
    assert_eq!(found.len(), expected.len(), "{what}: {found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            found.starts_with(expected),
            "{what}: {found}\nexpected: {expected}"
        );
    }
}

/// A document of `kube-reference`; None, with a message, where there is none.
pub fn reference(path: &str) -> Option<Value> {
    read(&shared("kube-reference").join(path))
}

/// A scenario of `kube-exchanges`.
pub fn exchanges(path: &str) -> Option<Value> {
    read(&shared("kube-exchanges/scenarios").join(path))
}

fn shared(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared")
        .join(folder)
}

fn read(file: &Path) -> Option<Value> {
    match std::fs::read_to_string(file) {
        Ok(text) => {
            let text = text
                .replace("${ns}", "kx-ns")
                .replace("${unique}", "kx-unique");
            Some(serde_json::from_str(&text).unwrap())
        }
        Err(error) => {
            eprintln!("skipped: {}: {error}", file.display());
            None
        }
    }
}

/// Fewer than this, and the test would compare nothing.
const COMPARED_AT_LEAST: usize = 250;

/// Scenarios that turn on admission by other objects (limits, policies) or on what this table has not yet.
const LEFT_OUT: &[&str] = &["admission", "apply", "crd", "auth"];

#[test]
fn writes_and_tables_are_as_recorded() {
    let Ok(areas) = std::fs::read_dir(shared("kube-exchanges/scenarios")) else {
        return eprintln!("skipped: no recordings of kube-apiserver beside the checkout");
    };
    let mut differences = Vec::new();
    let mut compared = 0;
    for area in areas.map(|area| area.unwrap().path()) {
        if LEFT_OUT.iter().any(|left_out| area.ends_with(left_out)) {
            continue;
        }
        for file in std::fs::read_dir(&area)
            .unwrap()
            .map(|file| file.unwrap().path())
        {
            let scenario = read(&file).unwrap();
            let mut made = BTreeMap::new();
            for step in scenario["steps"].as_array().unwrap() {
                let what = format!(
                    "{}/{} {}",
                    area.file_name().unwrap().display(),
                    file.file_stem().unwrap().display(),
                    step["id"]
                );
                if let Some(found) = replay(step, &mut made) {
                    compared += 1;
                    differences.extend(
                        found
                            .into_iter()
                            .map(|difference| format!("{what}: {difference}")),
                    );
                }
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences in {compared} exchanges:\n{}",
        differences.len(),
        differences.join("\n")
    );
    assert!(
        compared >= COMPARED_AT_LEAST,
        "only {compared} exchanges were compared"
    );
}

/// The differences; None if the step is none that hooks alone can answer.
fn replay(step: &Value, made: &mut BTreeMap<String, Value>) -> Option<Vec<String>> {
    let path = step["path"].as_str()?;
    let (kind, object_path, status) = place(path)?;
    let shown_otherwise = step["headers"]["Accept"]
        .as_str()
        .is_some_and(|accept| accept.contains("as="));
    if step.get("query").is_some()
        || !step["auth"].is_null()
        || step["body"].to_string().contains("${")
    {
        made.remove(object_path);
        return None;
    }
    match (step["method"].as_str()?, object_path.is_empty()) {
        ("GET", false) if step["expect"]["body"]["rows"].is_array() => {
            replay_table(kind, step, made.get(object_path)?)
        }
        _ if shown_otherwise => None,
        ("POST", true) => {
            let (object, found) = replay_create(kind, path, step)?;
            if let Some(object) = object {
                made.insert(
                    format!("{path}/{}", object["metadata"]["name"].as_str()?),
                    object,
                );
            }
            Some(found)
        }
        ("PUT" | "PATCH", false) => {
            let (object, found) = replay_update(kind, step, made.get(object_path)?, status)?;
            made.insert(object_path.to_owned(), object);
            Some(found)
        }
        ("GET", _) => None,
        _ => {
            made.remove(object_path);
            None
        }
    }
}

/// (kind, the object's path or "", whether it is its status) of a path that ends there.
fn place(path: &str) -> Option<(&'static Kind, &str, bool)> {
    let (object_path, status) = match path.strip_suffix("/status") {
        Some(object_path) => (object_path, true),
        None => (path, false),
    };
    let words: Vec<&str> = object_path.trim_start_matches('/').split('/').collect();
    let (group, version, rest) = match words[..] {
        ["api", version, ref rest @ ..] => ("", version, rest),
        ["apis", group, version, ref rest @ ..] => (group, version, rest),
        _ => return None,
    };
    match *rest {
        ["namespaces", _, plural, _] | [plural, _] if plural != "namespaces" || rest.len() == 2 => {
            by_plural(group, version, plural).map(|kind| (kind, object_path, status))
        }
        ["namespaces", _, plural] | [plural] => {
            by_plural(group, version, plural).map(|kind| (kind, "", status))
        }
        _ => None,
    }
}

fn replay_table(kind: &Kind, step: &Value, object: &Value) -> Option<Vec<String>> {
    let expected = &step["expect"]["body"];
    let ours = table(
        kind,
        [object],
        single_metadata(object),
        IncludeObject::Metadata,
        true,
        0,
    );
    let mut found = Vec::new();
    compare(
        "columnDefinitions",
        &expected["columnDefinitions"],
        &ours["columnDefinitions"],
        &mut found,
    );
    compare(
        "cells",
        &expected["rows"][0]["cells"],
        &ours["rows"][0]["cells"],
        &mut found,
    );
    Some(found)
}

type Replayed = (Option<Value>, Vec<String>);

fn replay_create(kind: &'static Kind, path: &str, step: &Value) -> Option<Replayed> {
    let mut object = typed(kind, step["body"].clone())?;
    if let Some((_, rest)) = path.split_once("/namespaces/").filter(|_| kind.namespaced) {
        object
            .get_mut("metadata")?
            .as_object_mut()?
            .entry("namespace")
            .or_insert_with(|| json!(rest.split('/').next()));
    }
    let mut object = decoded(kind, object);
    admit(kind, &mut object);
    let answered = strategy::create(kind, &mut object, &context()).map(|_| give(kind, &mut object));
    let found = judge(step, answered, &object)?;
    // As apply would stamp it.
    object["metadata"]["uid"] = json!("u");
    Some((
        Some(object).filter(|_| step["expect"]["status"] == 201),
        found,
    ))
}

fn replay_update(
    kind: &'static Kind,
    step: &Value,
    old: &Value,
    status: bool,
) -> Option<(Value, Vec<String>)> {
    let schema = Schema::of(kind.schema)?;
    let mut new = match step["method"].as_str()? {
        "PUT" => typed(kind, step["body"].clone())?,
        _ => {
            let how = PatchType::of(step["headers"]["Content-Type"].as_str()?)
                .filter(|how| *how != PatchType::Apply)?;
            patch(
                schema,
                how,
                old,
                step["body"].to_string().as_bytes(),
                FieldValidation::Warn,
            )
            .ok()?
            .0
        }
    };
    // Whether the name is the path's, and the version the last, is the server's to ask.
    let metadata = new.get_mut("metadata")?.as_object_mut()?;
    if metadata.contains_key("resourceVersion")
        || metadata.get("name") != old["metadata"].get("name")
    {
        return None;
    }
    metadata.insert("namespace".to_owned(), old["metadata"]["namespace"].clone());
    let mut new = decoded(kind, new);
    let answered = if status {
        strategy::update_status(kind, old, &mut new, &context()).map(|_| ())
    } else {
        strategy::update(kind, old, &mut new, &context()).map(|_| give(kind, &mut new))
    };
    let found = judge(step, answered, &new)?;
    let accepted = step["expect"]["status"] == 200;
    Some((if accepted { new } else { old.clone() }, found))
}

fn typed(kind: &Kind, mut body: Value) -> Option<Value> {
    let object = body.as_object_mut()?;
    object.insert("kind".to_owned(), json!(kind.kind));
    object.insert("apiVersion".to_owned(), json!(kind.api_version()));
    Some(body)
}

/// Our answer against the recorded one.
fn judge(step: &Value, answered: Result<(), StatusError>, object: &Value) -> Option<Vec<String>> {
    let expected = &step["expect"]["body"];
    if !expected["metadata"]["deletionTimestamp"].is_null() {
        return None;
    }
    let whole = step.get("compare").is_none();
    let mut found = Vec::new();
    match (step["expect"]["status"].as_u64()?, answered) {
        (200 | 201, Ok(())) if whole => {
            let ignored = step["ignore"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            let mut ours = object.clone();
            ignored.for_each(|path| remove(&mut ours, path));
            compare_objects(expected, &ours, &mut found);
        }
        (200 | 201, Ok(())) => {}
        (200 | 201, Err(error)) => found.push(format!("refused: {error}")),
        // Asked by the server: the range of ports is a setting, and a version must be named for a Lease.
        (422, _)
            if [
                "The range of valid ports",
                "must be specified for an update",
            ]
            .iter()
            .any(|text| expected.to_string().contains(text)) =>
        {
            return None;
        }
        (422, Ok(())) => found.push("was not refused".to_owned()),
        (422, Err(error)) if whole => {
            let ours = error.to_value();
            compare(
                "causes",
                &sorted_causes(expected),
                &sorted_causes(&ours),
                &mut found,
            );
            compare(
                "details.kind",
                &expected["details"]["kind"],
                &ours["details"]["kind"],
                &mut found,
            );
        }
        (422, Err(_)) => {}
        _ => return None,
    }
    Some(found)
}

/// Validation may find them in any order.
fn sorted_causes(status: &Value) -> Value {
    let mut causes: Vec<&Value> = status["details"]["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    causes.sort_by_key(|cause| cause.to_string());
    json!(causes)
}

/// What the server's admission adds to a pod.
fn admit(kind: &Kind, object: &mut Value) {
    if kind.plural != "pods" {
        return;
    }
    let Some(spec) = object["spec"].as_object_mut() else {
        return;
    };
    super::core::pod::tolerate_a_lost_node(spec, 300);
    let account = spec
        .get("serviceAccountName")
        .cloned()
        .unwrap_or(json!("default"));
    for (key, value) in [
        ("serviceAccountName", &account),
        ("serviceAccount", &account),
        ("preemptionPolicy", &json!("PreemptLowerPriority")),
    ] {
        spec.insert(key.to_owned(), value.clone());
    }
    spec.insert("priority".to_owned(), json!(0));
}

/// Gives each want something.
fn give(kind: &Kind, object: &mut Value) {
    let grants: Vec<Claim> = (kind.hooks.wants)(object, &[false])
        .into_iter()
        .map(|want| match want {
            Want::ServiceAddress { fixed, .. } => {
                Claim::ServiceAddress(fixed.unwrap_or([10, 96, 0, 9].into()))
            }
            Want::NodePort { fixed, .. } => Claim::NodePort(fixed.unwrap_or(30000)),
        })
        .collect();
    (kind.hooks.grant)(object, &grants);
}

fn remove(object: &mut Value, path: &str) {
    match path.split_once('.') {
        Some((head, rest)) => {
            if let Some(inner) = object.get_mut(head) {
                remove(inner, rest);
            }
        }
        None => {
            if let Some(map) = object.as_object_mut() {
                map.shift_remove(path);
            }
        }
    }
}

/// Without what is stamped, and without the token's volume, which needs a service account.
fn compare_objects(expected: &Value, ours: &Value, found: &mut Vec<String>) {
    let mut expected = expected.clone();
    for stamp in ["uid", "resourceVersion", "creationTimestamp"] {
        remove(&mut expected, &format!("metadata.{stamp}"));
    }
    let token = |item: &Value| {
        item["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("kube-api-access-"))
    };
    let drop_token = |holder: &mut Value, key: &str| {
        if let Some(list) = holder.get_mut(key).and_then(Value::as_array_mut) {
            list.retain(|item| !token(item));
            if list.is_empty() {
                remove(holder, key);
            }
        }
    };
    if let Some(spec) = expected.get_mut("spec") {
        drop_token(spec, "volumes");
        for key in ["containers", "initContainers"] {
            spec.get_mut(key)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
                .for_each(|container| drop_token(container, "volumeMounts"));
        }
    }
    let mut ours = ours.clone();
    remove(&mut ours, "metadata.uid");
    compare("", &expected, &ours, found);
}

/// Where they differ. A placeholder of the recording fits anything that is there.
fn compare(path: &str, expected: &Value, ours: &Value, found: &mut Vec<String>) {
    let is_placeholder = expected
        .as_str()
        .is_some_and(|text| text.starts_with('<') && text.ends_with('>') && text != "<none>");
    match (expected, ours) {
        _ if expected == ours || (is_placeholder && !ours.is_null()) => {}
        (Value::Object(theirs), Value::Object(own)) => {
            for key in theirs
                .keys()
                .chain(own.keys().filter(|key| !theirs.contains_key(*key)))
            {
                let side = |object: &Value| object.get(key).cloned().unwrap_or(json!("(absent)"));
                compare(
                    &format!("{path}.{key}"),
                    &side(expected),
                    &side(ours),
                    found,
                );
            }
        }
        (Value::Array(theirs), Value::Array(own)) if theirs.len() == own.len() => {
            for (index, (theirs, own)) in theirs.iter().zip(own).enumerate() {
                compare(&format!("{path}[{index}]"), theirs, own, found);
            }
        }
        (Value::String(theirs), Value::String(own))
            if ["<random>", "<value>", "<difference>"]
                .iter()
                .any(|placeholder| theirs.contains(placeholder)) =>
        {
            let start = theirs.split('<').next().unwrap_or_default();
            if !own.starts_with(start) {
                found.push(format!("{path}: expected {theirs}, got {own}"));
            }
        }
        _ => found.push(format!("{path}: expected {expected}, got {ours}")),
    }
}

#[test]
fn every_row_has_a_schema() {
    for kind in KINDS {
        let schema = Schema::of(kind.schema).unwrap_or_else(|| panic!("{} has none", kind.schema));
        assert_eq!(
            schema.gvk,
            Some((
                kind.group.to_owned(),
                kind.version.to_owned(),
                kind.kind.to_owned()
            ))
        );
    }
}

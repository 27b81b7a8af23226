//! For tests alone: scenarios in which a real kube-apiserver applied, patched and booked owners, replayed over these
//! functions and the kinds' hooks. Owners, errors and what was applied are compared; where there is no recording, it is said.

use super::apply::{Apply, apply};
use super::{PatchType, managed, patch};
use crate::error::StatusError;
use crate::kind::Kind;
use crate::resources::recorded::{context, exchanges};
use crate::resources::{by_plural, strategy};
use crate::schema::decode::{Body, FieldValidation, decode};
use crate::schema::{Schema, defaults};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const NOW: &str = "2026-01-02T03:04:05Z";
/// What the recorder called itself.
const AGENT: &str = "kube-exchanges";

#[test]
fn applies_are_answered_as_recorded() {
    let rows = [
        ("apply/conflicts", 9),
        ("apply/create-and-update", 7),
        ("apply/dry-run-and-strict", 7),
        ("apply/from-client-side", 4),
        ("apply/list-maps", 8),
        ("apply/pods", 5),
        ("apply/services-and-sets", 10),
        ("kubectl/apply-server-side", 7),
        ("kubectl/apply", 6),
        ("patch/types", 6),
        ("patch/json-patch", 12),
        ("patch/merge-patch", 8),
        ("patch/strategic-lists", 10),
        ("validation/unknown-fields", 8),
    ];
    for (name, at_least) in rows {
        let Some(scenario) = exchanges(&format!("{name}.json")) else {
            continue;
        };
        let (mut objects, mut compared) = (BTreeMap::new(), 0);
        for step in scenario["steps"].as_array().unwrap() {
            let what = format!("{name} {}", step["id"]);
            compared += usize::from(replay(&what, step, &mut objects));
        }
        assert!(
            compared >= at_least,
            "{name}: only {compared} exchanges were compared"
        );
    }
}

/// Whether the step could be replayed; its differences are asserted.
fn replay(what: &str, step: &Value, objects: &mut BTreeMap<String, Value>) -> bool {
    let Some((kind, path, status)) = place(step["path"].as_str().unwrap()) else {
        return false;
    };
    let dry = step["query"]["dryRun"] == "All";
    // The version is the server's to compare, and the parameters its to read.
    if step["body"]["metadata"].get("resourceVersion").is_some()
        || step["query"]["fieldValidation"] == "Harsh"
    {
        return false;
    }
    let live = objects.get(&path).cloned();
    let answered = match step["method"].as_str().unwrap() {
        "GET" => live
            .clone()
            .map(|object| (object, Vec::new()))
            .ok_or_else(|| {
                StatusError::not_found(kind.group, kind.plural, path.rsplit('/').next().unwrap())
            }),
        "POST" => create(kind, step),
        "PATCH" => match PatchType::of(step["headers"]["Content-Type"].as_str().unwrap()) {
            Some(how) => change(kind, how, live.as_ref(), step, status),
            None => return false,
        },
        _ => return false,
    };
    compare(
        what,
        step,
        answered
            .as_ref()
            .map(|(object, warnings)| (object, warnings.as_slice())),
    );
    if let (Ok((object, _)), false) = (answered, dry) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        objects.insert(
            if step["method"] == "POST" {
                format!("{path}/{name}")
            } else {
                path
            },
            object,
        );
    }
    true
}

type Answer = Result<(Value, Vec<String>), StatusError>;

fn schema_of(kind: &Kind) -> &'static Schema {
    Schema::of(kind.schema).unwrap()
}

fn manager(step: &Value) -> String {
    let agent = step["headers"]["User-Agent"].as_str().unwrap_or(AGENT);
    managed::manager_name(
        step["query"]["fieldManager"].as_str().unwrap_or_default(),
        agent,
    )
}

fn validation(step: &Value) -> FieldValidation {
    FieldValidation::parse(
        step["query"]["fieldValidation"]
            .as_str()
            .unwrap_or_default(),
        "",
    )
    .unwrap()
}

fn body(step: &Value) -> String {
    step["body"]
        .as_str()
        .map_or_else(|| step["body"].to_string(), str::to_owned)
}

fn with_defaults(kind: &Kind, object: &mut Value) {
    defaults::default(schema_of(kind), object);
    (kind.hooks.default)(object);
}

fn made(kind: &'static Kind, mut object: Value, warnings: Vec<String>) -> Answer {
    object["metadata"]["namespace"] = json!("kx-ns");
    strategy::create(kind, &mut object, &context())?;
    object["metadata"]["uid"] = json!("u");
    crate::schema::decode::canonicalise(schema_of(kind), &mut object);
    Ok((object, warnings))
}

fn create(kind: &'static Kind, step: &Value) -> Answer {
    let (mut object, warnings) = decode(
        schema_of(kind),
        Body::Json(body(step).as_bytes()),
        validation(step),
    )?;
    with_defaults(kind, &mut object);
    managed::update(schema_of(kind), None, &mut object, &manager(step), "", NOW);
    made(kind, object, warnings)
}

fn change(
    kind: &'static Kind,
    how: PatchType,
    live: Option<&Value>,
    step: &Value,
    status: bool,
) -> Answer {
    let (schema, manager, part) = (
        schema_of(kind),
        manager(step),
        if status { "status" } else { "" },
    );
    let (mut new, warnings) = match (how, live) {
        (PatchType::Apply, live) => {
            let force = step["query"]["force"] == "true";
            let asked = Apply {
                manager: &manager,
                force,
                subresource: part,
                now: NOW,
                validation: validation(step),
            };
            let (mut object, warnings) = apply(schema, live, body(step).as_bytes(), asked)?;
            with_defaults(kind, &mut object);
            if live.is_none() {
                return made(kind, object, warnings);
            }
            (object, warnings)
        }
        (how, Some(live)) => {
            let (mut object, warnings) =
                patch(schema, how, live, body(step).as_bytes(), validation(step))?;
            with_defaults(kind, &mut object);
            managed::update(schema, Some(live), &mut object, &manager, part, NOW);
            (object, warnings)
        }
        (_, None) => return Err(StatusError::not_found(kind.group, kind.plural, "")),
    };
    let old = live.unwrap();
    if status {
        strategy::update_status(kind, old, &mut new, &context())?;
    } else {
        strategy::update(kind, old, &mut new, &context())?;
    }
    crate::schema::decode::canonicalise(schema, &mut new);
    managed::settle_times(old, &mut new);
    Ok((new, warnings))
}

fn compare(what: &str, step: &Value, answered: Result<(&Value, &[String]), &StatusError>) {
    let expected = &step["expect"]["body"];
    let compares = |word: &str| {
        step["compare"]
            .as_array()
            .is_some_and(|words| words.iter().any(|found| found == word))
    };
    match answered {
        Err(error) => {
            assert_eq!(
                u64::from(error.code),
                step["expect"]["status"],
                "{what}: {error}"
            );
            let prints_values =
                expected["message"].as_str().unwrap().contains(['<', '\n']) && error.code == 422;
            if !compares("reason") && !prints_values && !error.message.contains("is invalid: [") {
                assert_eq!(
                    error.message,
                    expected["message"].as_str().unwrap(),
                    "{what}"
                );
                assert_eq!(
                    error.details,
                    expected.get("details").cloned().unwrap_or_default(),
                    "{what}"
                );
            }
        }
        Ok((object, warnings)) => {
            assert!(
                matches!(step["expect"]["status"].as_u64(), Some(200 | 201)),
                "{what}: was not refused"
            );
            let said: Vec<String> = warnings
                .iter()
                .map(|warning| format!("299 - {}", crate::error::go_quote(warning)))
                .collect();
            assert_eq!(
                json!(said),
                step["expect"]["headers"]
                    .get("warning")
                    .cloned()
                    .unwrap_or(json!([])),
                "{what}"
            );
            for field in [
                "/data",
                "/metadata/labels",
                "/metadata/annotations",
                "/metadata/finalizers",
                "/spec/selector",
                "/spec/template",
            ] {
                assert_eq!(
                    object.pointer(field).filter(|value| !value.is_null()),
                    expected.pointer(field),
                    "{what} {field}"
                );
            }
            let containers = |object: &Value| -> Vec<Value> {
                let list = object
                    .pointer("/spec/containers")
                    .and_then(Value::as_array)
                    .cloned()
                    .unwrap_or_default();
                list.iter()
                    .map(|container| {
                        json!([
                            container["name"],
                            container["image"],
                            container["env"],
                            container["ports"]
                        ])
                    })
                    .collect()
            };
            assert_eq!(containers(object), containers(expected), "{what}");
            if compares("managedFields") {
                assert_eq!(owners(object), owners(expected), "{what}");
            }
        }
    }
}

/// The entries, sorted, with whether they have a time and not which.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut texts: Vec<String> = entries
        .into_iter()
        .map(|mut entry| {
            if entry.get("time").is_some() {
                entry["time"] = json!("a time");
            }
            crate::error::go_json(&entry)
        })
        .collect();
    texts.sort();
    texts
}

/// (kind, path of the object or the list, whether it is the status) where the kind is one of ours.
fn place(path: &str) -> Option<(&'static Kind, String, bool)> {
    let (path, status) = path
        .strip_suffix("/status")
        .map_or((path, false), |path| (path, true));
    let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (group, version, rest) = match words.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let ["namespaces", _, plural, ..] = rest else {
        return None;
    };
    Some((by_plural(group, version, plural)?, path.to_owned(), status))
}

//! The rules of `metadata`, the same for every kind: what a client may set, how it is checked, what an update may change.
//! Stamps (uid, resourceVersion, the times) are apply's: here they are only taken off, carried over and compared.

use super::checks::{
    Findings, IMMUTABLE, NOT_NEGATIVE, entries, items, object_at, take_from, text,
};
use super::names;
use crate::error::FieldError;
use crate::kind::{Context, Kind};
use serde_json::{Value, json};

/// Longest generated name, and how much of it is random (Kubernetes: `names.SimpleNameGenerator`).
const GENERATED_MAX: usize = 63;
const SUFFIX_LENGTH: usize = 5;
const ANNOTATIONS_MAX_BYTES: usize = 256 << 10;
const STANDARD_FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];

/// What the log stamps, or the start of a deletion sets. No client's word counts here.
const STAMPED: &[&str] = &[
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// Before a create: takes off what is stamped, starts the generation (of a kind that has none a client's number stays, as in
/// Kubernetes), makes a name out of `generateName`.
pub fn prepare_create(kind: &Kind, object: &mut Value, context: &Context) {
    let Some(metadata) = object_at(object, "metadata") else {
        return;
    };
    for key in STAMPED
        .iter()
        .chain(&["uid", "resourceVersion", "selfLink"])
    {
        metadata.shift_remove(*key);
    }
    if kind.generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
    let named = metadata
        .get("name")
        .is_some_and(|name| !text(name).is_empty());
    let prefix = metadata
        .get("generateName")
        .map(text)
        .unwrap_or_default()
        .to_owned();
    if !named && !prefix.is_empty() {
        metadata.insert(
            "name".to_owned(),
            json!(generated_name(&prefix, &context.suffix)),
        );
    }
}

/// `web-` and `x7k2m` make `web-x7k2m`; a long prefix is cut.
pub fn generated_name(prefix: &str, suffix: &str) -> String {
    let mut end = prefix.len().min(GENERATED_MAX - SUFFIX_LENGTH);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &prefix[..end])
}

/// Before an update: what is stamped, and the generation, stays as it is. A uid that the client names is compared later.
pub fn prepare_update(old: &Value, new: &mut Value) {
    let old = &old["metadata"];
    let Some(metadata) = new.get_mut("metadata") else {
        return;
    };
    for key in STAMPED.iter().chain(&["generation", "selfLink"]) {
        take_from(old, metadata, key);
    }
    for key in ["uid", "namespace", "name"] {
        if text(&metadata[key]).is_empty() {
            take_from(old, metadata, key);
        }
    }
}

pub fn validate(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let metadata = &object["metadata"];
    let mut found = Findings::new();
    validate_name(kind, metadata, &mut found);
    if metadata["generation"]
        .as_i64()
        .is_some_and(|generation| generation < 0)
    {
        found.invalid(
            "metadata.generation",
            metadata["generation"].clone(),
            NOT_NEGATIVE,
        );
    }
    validate_labels(&metadata["labels"], "metadata.labels", &mut found);
    validate_annotations(&metadata["annotations"], "metadata.annotations", &mut found);
    validate_owners(&metadata["ownerReferences"], &mut found);
    validate_finalizers(&metadata["finalizers"], &mut found);
    found.0
}

/// Besides `validate` of the new object.
pub fn validate_update(old: &Value, new: &Value) -> Vec<FieldError> {
    let (old, new) = (&old["metadata"], &new["metadata"]);
    let mut found = Findings::new();
    if !old["deletionTimestamp"].is_null() {
        let had: Vec<&str> = items(&old["finalizers"]).iter().map(text).collect();
        let added: Vec<String> = items(&new["finalizers"])
            .iter()
            .map(text)
            .filter(|name| !had.contains(name))
            .map(|name| format!("{name:?}"))
            .collect();
        if !added.is_empty() {
            found.forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.join(", ")
                ),
            );
        }
    }
    for key in [
        "name",
        "namespace",
        "uid",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        // An object that was never stamped (a dry run, a test) has no uid to keep.
        if old[key] != new[key] && !(key == "uid" && old[key].is_null()) {
            found.invalid(format!("metadata.{key}"), new[key].clone(), IMMUTABLE);
        }
    }
    found.0
}

pub fn validate_labels(labels: &Value, path: &str, found: &mut Findings) {
    for (key, value) in entries(labels) {
        found.all(path, key, names::qualified_name(key));
        found.all(path, text(value), names::label_value(text(value)));
    }
}

pub fn validate_annotations(annotations: &Value, path: &str, found: &mut Findings) {
    let mut bytes = 0;
    for (key, value) in entries(annotations) {
        // Upper case is allowed in the prefix here, and nowhere else.
        for message in names::qualified_name(&key.to_lowercase()) {
            found.invalid(path, key.as_str(), message);
        }
        bytes += key.len() + text(value).len();
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        found.too_long(path, ANNOTATIONS_MAX_BYTES);
    }
}

fn validate_name(kind: &Kind, metadata: &Value, found: &mut Findings) {
    let prefix = text(&metadata["generateName"]);
    if !prefix.is_empty() {
        found.all(
            "metadata.generateName",
            prefix,
            names::object_name(kind.name_rule, prefix, true),
        );
    }
    match text(&metadata["name"]) {
        "" => found.required("metadata.name", "name or generateName is required"),
        name => found.all(
            "metadata.name",
            name,
            names::object_name(kind.name_rule, name, false),
        ),
    }
    match (kind.namespaced, text(&metadata["namespace"])) {
        (true, "") => found.required("metadata.namespace", ""),
        (true, namespace) => found.all("metadata.namespace", namespace, names::label(namespace)),
        (false, "") => {}
        (false, _) => found.forbidden("metadata.namespace", "not allowed on this type"),
    }
}

fn validate_owners(owners: &Value, found: &mut Findings) {
    let path = "metadata.ownerReferences";
    let mut controller: Option<&str> = None;
    for owner in items(owners) {
        let version = text(&owner["apiVersion"]);
        if version.is_empty() || version.ends_with('/') {
            found.invalid(
                format!("{path}.apiVersion"),
                version,
                "version must not be empty",
            );
        }
        for key in ["kind", "name", "uid"] {
            if text(&owner[key]).is_empty() {
                found.invalid(format!("{path}.{key}"), "", "must not be empty");
            }
        }
        if version == "v1" && owner["kind"] == "Event" {
            found.invalid(
                path,
                owner.clone(),
                "/v1, Kind=Event is disallowed from being an owner",
            );
        }
        if owner["controller"] == true {
            match controller {
                None => controller = Some(text(&owner["name"])),
                Some(first) => found.invalid(
                    path,
                    owners.clone(),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                        text(&owner["name"])
                    ),
                ),
            }
        }
    }
}

fn validate_finalizers(finalizers: &Value, found: &mut Findings) {
    let path = "metadata.finalizers";
    for (index, finalizer) in items(finalizers).iter().enumerate() {
        let name = text(finalizer);
        let at = format!("{path}[{index}]");
        found.all(&at, name, names::qualified_name(name));
        if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
            found.invalid(
                at,
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
    let has = |name: &str| items(finalizers).iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        found.invalid(
            path,
            finalizers.clone(),
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
}

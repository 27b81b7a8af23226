//! Delete: at once, or the beginning of a deletion that a grace period or finalizers hold.
//!
//! The order is Kubernetes' (`BeforeDelete`, then finalizers): what is being deleted already can only be hurried; a kind with grace is marked
//! until its agent is done; what has finalizers is marked until they are gone; everything else goes now, and its claims with it.

use super::call::{Call, Target};
use super::query::options_invalid;
use super::respond::{Reply, Shown};
use super::service_ips;
use super::update;
use super::write::{self, Plan};
use crate::core::Draft;
use eventstore::{Change, Deletion, Event, Expected, Intent, Object, View, What};
use kinds::error::{FieldError, StatusError};
use kinds::kind::{Propagation, Subresource};
use kinds::resources::strategy;
use kinds::schema::{Schema, json as json_schema, protobuf, yaml};
use serde_json::{Value, json};
use std::sync::Arc;

/// Namespaces that the cluster can't be without (Kubernetes: NamespaceLifecycle's immortal namespaces).
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// What a DELETE says beside what it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub grace_s: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: bool,
}

pub(crate) async fn serve(call: &Call, target: &Target) -> Result<Reply, StatusError> {
    let accept = call.accept()?;
    let include = call.include()?;
    let options = DeleteOptions::read(call)?;
    let deleted = delete(call, target, &options, &|| options.intent(target)).await?;
    Ok(match deleted.shown(target) {
        Some(shown) => Reply::object(accept, target.kind, 200, &shown, include, call.now_ms()),
        None => Reply::value(accept, 200, &deleted.success(target)),
    })
}

/// What became of the object.
pub(crate) struct Deleted {
    pub object: Shown,
    pub uid: String,
    /// It is gone, and not only marked.
    pub gone: bool,
}

impl Deleted {
    /// The object, where Kubernetes answers with it.
    fn shown(&self, target: &Target) -> Option<Shown> {
        (!self.gone || target.kind.returns_deleted).then(|| self.object.clone())
    }

    fn success(&self, target: &Target) -> Value {
        let mut details = json!({"name": target.name});
        if !target.kind.group.is_empty() {
            details["group"] = json!(target.kind.group);
        }
        details["kind"] = json!(target.kind.plural);
        details["uid"] = json!(self.uid);
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
    }
}

/// Deletes the object that the target names, or begins to.
pub(crate) async fn delete(
    call: &Call,
    target: &Target,
    options: &DeleteOptions,
    intent: &(dyn Fn() -> Intent + Sync),
) -> Result<Deleted, StatusError> {
    if target.kind.resource() == "namespaces" && IMMORTAL.contains(&target.name.as_str()) {
        return Err(StatusError::forbidden(
            "",
            "namespaces",
            &target.name,
            "this namespace may not be deleted",
        ));
    }
    let key = target.key();
    let (event, deleted) = write::settle(call, |view| {
        let current = view.get(&key).ok_or_else(|| target.not_found())?;
        check_preconditions(target, current, options)?;
        let decision = decide(target, current, options);
        let deleted = decision.shown(call, current);
        match draft_of(view, target, current, decision, intent())? {
            Some(draft) if !options.dry_run => Ok(Plan::Propose(draft, deleted)),
            _ => Ok(Plan::Done(deleted)),
        }
    })
    .await?;
    Ok(match event {
        Some(event) => as_happened(deleted, &event, &key),
        None => deleted,
    })
}

/// The proposal by which an object goes, or begins to. None: it is going already, and not to be hurried.
pub(crate) fn draft(
    view: &View,
    target: &Target,
    current: &Arc<Object>,
    options: &DeleteOptions,
    intent: Intent,
) -> Result<Option<Draft>, StatusError> {
    let decision = decide(target, current, options);
    draft_of(view, target, current, decision, intent)
}

fn draft_of(
    view: &View,
    target: &Target,
    current: &Arc<Object>,
    decision: Decision,
    intent: Intent,
) -> Result<Option<Draft>, StatusError> {
    let marks = |object: &Value, grace_s: i64| -> Result<What, StatusError> {
        Ok(What::Put {
            body: write::cut(object)?,
            delete_grace_s: Some(grace_s),
        })
    };
    Ok(match decision {
        Decision::Nothing => None,
        Decision::Mark { object, grace_s } => {
            let key = target.key();
            let expectations = vec![write::expect(
                key.clone(),
                Expected::Revision(current.revision()),
            )];
            let what = marks(&object, grace_s)?;
            Some(Draft::objects(
                intent,
                expectations,
                vec![Change { key, what }],
            ))
        }
        Decision::Remove {
            object,
            marked_with,
        } => {
            let mark = match marked_with {
                Some(grace_s) => Some(marks(&object, grace_s)?),
                None => None,
            };
            Some(removal(view, target, current, mark, intent))
        }
    })
}

/// The object goes, and its claims with it. `mark`: its last version, which those who watch see before it goes.
fn removal(
    view: &View,
    target: &Target,
    current: &Arc<Object>,
    mark: Option<What>,
    intent: Intent,
) -> Draft {
    let key = target.key();
    let mut expectations = vec![write::expect(
        key.clone(),
        Expected::Revision(current.revision()),
    )];
    let steps = mark.into_iter().chain([What::Remove]);
    let mut changes: Vec<Change> = steps
        .map(|what| Change {
            key: key.clone(),
            what,
        })
        .collect();
    service_ips::release_all(view, target.kind, &key, &current.to_value())
        .join(&mut expectations, &mut changes);
    Draft::objects(intent, expectations, changes)
}

/// With the stamps that the log gave: what is there now, or the last version at the revision of its going.
fn as_happened(mut deleted: Deleted, event: &Event, key: &eventstore::Key) -> Deleted {
    let last = event.objects.iter().rev().find(|folded| folded.key == *key);
    let Some(last) = last else {
        return deleted;
    };
    match (&last.after, &mut deleted.object) {
        (Some(marked), shown) => *shown = Shown::Stored(marked.clone()),
        (None, Shown::Made(object)) => {
            object["metadata"]["resourceVersion"] = json!(last.revision.to_string());
        }
        (None, Shown::Stored(_)) => {}
    }
    deleted
}

enum Decision {
    /// It is being deleted already, and not to be hurried.
    Nothing,
    /// Its deletion begins, or is hurried.
    Mark { object: Value, grace_s: i64 },
    /// It goes. `marked_with`: of a kind with grace, which is none here: that is written first, and seen by those who watch.
    Remove {
        object: Value,
        marked_with: Option<i64>,
    },
}

impl Decision {
    /// What the caller is shown of it.
    fn shown(&self, call: &Call, current: &Arc<Object>) -> Deleted {
        let (object, gone) = match self {
            Self::Nothing => (Shown::Stored(current.clone()), false),
            Self::Mark { object, grace_s } => (Shown::Made(marked(call, object, *grace_s)), false),
            Self::Remove {
                object,
                marked_with,
            } => {
                let object = match marked_with {
                    Some(grace_s) => marked(call, object, *grace_s),
                    None => object.clone(),
                };
                (Shown::Made(object), true)
            }
        };
        Deleted {
            object,
            uid: current.uid().to_string(),
            gone,
        }
    }
}

fn decide(target: &Target, current: &Arc<Object>, options: &DeleteOptions) -> Decision {
    let kind = target.kind;
    let mut object = current.to_value();
    if let Some(deletion) = current.stamps.deletion {
        let hurried = options
            .grace_s
            .map(|grace_s| if grace_s < 0 { 1 } else { grace_s })
            .filter(|grace_s| *grace_s < deletion.grace_s);
        return match hurried {
            // Nothing in it holds it any more: what holds a namespace may have gone while it was marked.
            None if kind.has(Subresource::Finalize) && !update::held(kind, &object) => {
                Decision::Remove {
                    object,
                    marked_with: None,
                }
            }
            None => Decision::Nothing,
            Some(0) if !update::held(kind, &object) => Decision::Remove {
                object,
                marked_with: Some(0),
            },
            Some(grace_s) => Decision::Mark { object, grace_s },
        };
    }
    let grace = (kind.hooks.delete_grace)(&object, options.grace_s);
    // What waits for its content has no other order of going, and no grace.
    let waits_for_content = kind.has(Subresource::Finalize);
    if !waits_for_content {
        set_collector_finalizers(&mut object, options.propagation, kind.default_propagation);
    }
    let held = update::held(kind, &object);
    match grace {
        None | Some(0) if held => {
            strategy::begin_delete(kind, &mut object);
            let grace_s = if waits_for_content {
                Deletion::WITHOUT_GRACE
            } else {
                0
            };
            Decision::Mark { object, grace_s }
        }
        None => Decision::Remove {
            object,
            marked_with: None,
        },
        Some(0) => {
            strategy::begin_delete(kind, &mut object);
            Decision::Remove {
                object,
                marked_with: Some(0),
            }
        }
        Some(grace_s) => {
            strategy::begin_delete(kind, &mut object);
            Decision::Mark { object, grace_s }
        }
    }
}

/// As it will be stamped, for those who are shown it before.
fn marked(call: &Call, object: &Value, grace_s: i64) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert(
            "deletionTimestamp".into(),
            json!(call.core().now().plus_ms(grace_s.max(0) * 1000).to_string()),
        );
        if grace_s != Deletion::WITHOUT_GRACE {
            metadata.insert("deletionGracePeriodSeconds".into(), json!(grace_s));
        }
    }
    object
}

/// `orphan` and `foregroundDeletion`: the garbage collector's own finalizers, as the propagation asks.
fn set_collector_finalizers(object: &mut Value, asked: Option<Propagation>, default: Propagation) {
    const ORPHAN: &str = "orphan";
    const FOREGROUND: &str = "foregroundDeletion";
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    let mut finalizers = metadata
        .get("finalizers")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let has =
        |finalizers: &[Value], name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    let propagation = match asked {
        Some(asked) => asked,
        // What the object says itself holds where the request says nothing.
        None if has(&finalizers, ORPHAN) => Propagation::Orphan,
        None if has(&finalizers, FOREGROUND) => Propagation::Foreground,
        None => default,
    };
    finalizers.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
    match propagation {
        Propagation::Background => {}
        Propagation::Orphan => finalizers.push(json!(ORPHAN)),
        Propagation::Foreground => finalizers.push(json!(FOREGROUND)),
    }
    if finalizers.is_empty() {
        metadata.shift_remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), Value::Array(finalizers));
    }
}

fn check_preconditions(
    target: &Target,
    current: &Object,
    options: &DeleteOptions,
) -> Result<(), StatusError> {
    let (group, plural, name) = (target.kind.group, target.kind.plural, target.name.as_str());
    if let Some(uid) = &options.uid
        && *uid != current.uid().to_string()
    {
        let text = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            current.uid()
        );
        return Err(StatusError::conflict(group, plural, name, &text));
    }
    if let Some(version) = &options.resource_version
        && *version != current.revision().to_string()
    {
        let text = format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
            current.revision()
        );
        return Err(StatusError::conflict(group, plural, name, &text));
    }
    Ok(())
}

impl DeleteOptions {
    /// From the body if there is one, else from the query.
    pub fn read(call: &Call) -> Result<Self, StatusError> {
        if call.body.is_empty() {
            return Self::from_query(call);
        }
        Self::from_value(&read_body(call)?)
    }

    fn from_query(call: &Call) -> Result<Self, StatusError> {
        let mut value = json!({});
        if let Some(grace_s) = call.query.integer("gracePeriodSeconds")? {
            value["gracePeriodSeconds"] = json!(grace_s);
        }
        if let Some(policy) = call.query.get("propagationPolicy") {
            value["propagationPolicy"] = json!(policy);
        }
        if call.query.get("orphanDependents").is_some() {
            value["orphanDependents"] = json!(call.query.flag("orphanDependents"));
        }
        value["dryRun"] = call
            .query
            .all("dryRun")
            .filter(|value| !value.is_empty())
            .collect();
        Self::from_value(&value)
    }

    /// From a DeleteOptions object.
    pub fn from_value(value: &Value) -> Result<Self, StatusError> {
        let invalid = |error: FieldError| options_invalid("DeleteOptions", &[error]);
        let policy = value["propagationPolicy"].as_str();
        let orphans = value["orphanDependents"].as_bool();
        if policy.is_some() && orphans.is_some() {
            return Err(invalid(FieldError::invalid(
                "propagationPolicy",
                policy.unwrap_or_default(),
                "orphanDependents and deletionPropagation cannot be both set",
            )));
        }
        let propagation = match (policy, orphans) {
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some(other), _) => {
                return Err(invalid(FieldError::not_supported(
                    "propagationPolicy",
                    other,
                    &["Foreground", "Background", "Orphan", "nil"],
                )));
            }
            (None, None) => None,
        };
        let mut dry_run = false;
        for mode in value["dryRun"].as_array().into_iter().flatten() {
            match mode.as_str().unwrap_or_default() {
                "All" => dry_run = true,
                other => {
                    return Err(invalid(FieldError::not_supported(
                        "dryRun",
                        other,
                        &["All"],
                    )));
                }
            }
        }
        let text = |field: &str| value["preconditions"][field].as_str().map(str::to_owned);
        Ok(Self {
            grace_s: value["gracePeriodSeconds"].as_i64(),
            propagation,
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            dry_run,
        })
    }

    pub fn intent(&self, target: &Target) -> Intent {
        let propagation = match self.propagation.unwrap_or(target.kind.default_propagation) {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        };
        Intent::Delete {
            grace_s: self.grace_s,
            propagation: propagation.into(),
        }
    }
}

/// A DELETE's body, whatever kind it calls itself.
fn read_body(call: &Call) -> Result<Value, StatusError> {
    if super::negotiate::is_protobuf(&call.content_type()) {
        let schema = Schema::of(DELETE_OPTIONS)
            .expect("the schema table has the options of a DELETE: a test reads them");
        let read = protobuf::open(&call.body)
            .and_then(|envelope| protobuf::read(schema, envelope.message));
        return read.map_err(StatusError::bad_request);
    }
    let refuse = |error: String| {
        StatusError::bad_request(format!(
            "couldn't get version/kind; json parse error: {error}"
        ))
    };
    match super::negotiate::body_encoding(&call.content_type())? {
        super::negotiate::Encoding::Json => json_schema::parse(&call.body)
            .map(|parsed| parsed.value)
            .map_err(refuse),
        super::negotiate::Encoding::Yaml => yaml::parse(&call.body)
            .map(|(value, _)| value)
            .map_err(refuse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grace 30 and a dry run, as `DeleteOptions` in protobuf without its envelope.
    #[test]
    fn options_are_read_from_protobuf() {
        let message = [&[0x08, 30, 0x2a, 3][..], b"All"].concat();
        let options = protobuf::read(Schema::of(DELETE_OPTIONS).unwrap(), &message);
        assert_eq!(
            options,
            Ok(json!({"gracePeriodSeconds": 30, "dryRun": ["All"]}))
        );
    }

    #[test]
    fn options_are_read_or_refused() {
        let rows = [
            (json!({}), Ok((None, None, false))),
            (
                json!({"gracePeriodSeconds": 5, "propagationPolicy": "Foreground"}),
                Ok((Some(5), Some(Propagation::Foreground), false)),
            ),
            (
                json!({"orphanDependents": true}),
                Ok((None, Some(Propagation::Orphan), false)),
            ),
            (json!({"dryRun": ["All"]}), Ok((None, None, true))),
            (json!({"dryRun": ["Some"]}), Err(422)),
            (json!({"propagationPolicy": "Sideways"}), Err(422)),
            (
                json!({"propagationPolicy": "Orphan", "orphanDependents": true}),
                Err(422),
            ),
        ];
        for (value, expected) in rows {
            let read = DeleteOptions::from_value(&value)
                .map(|options| (options.grace_s, options.propagation, options.dry_run));
            assert_eq!(read.map_err(|error| error.code), expected, "{value}");
        }
    }

    #[test]
    fn the_collector_is_told_by_finalizers() {
        let rows = [
            (json!([]), None, json!(null)),
            (
                json!(["a/b"]),
                Some(Propagation::Foreground),
                json!(["a/b", "foregroundDeletion"]),
            ),
            (
                json!(["orphan"]),
                Some(Propagation::Background),
                json!(null),
            ),
            (json!(["orphan"]), None, json!(["orphan"])),
            (
                json!(["foregroundDeletion"]),
                Some(Propagation::Orphan),
                json!(["orphan"]),
            ),
        ];
        for (finalizers, asked, expected) in rows {
            let mut object = json!({"metadata": {"finalizers": finalizers}});
            set_collector_finalizers(&mut object, asked, Propagation::Background);
            assert_eq!(object["metadata"]["finalizers"], expected);
        }
    }
}

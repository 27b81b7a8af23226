//! Update: what may follow the version that was read. Replace, patch, scale, status and finalize all end here.
//!
//! The client's version and uid are compared first; then the kind's strategy takes from the old what this path may not change; nothing changed
//! means no proposal. A change that takes away the last that held a deletion is the deletion.

use super::binds;
use super::call::{Call, Target};
use super::create;
use super::managed::{self, Manager};
use super::options::WriteOptions;
use super::respond::{Reply, Shown};
use super::service_ips;
use super::write::{self, Plan};
use crate::core::Draft;
use eventstore::{Change, Expected, Intent, Object, What};
use kinds::error::{FieldError, StatusError};
use kinds::kind::{Context, Kind, Subresource};
use kinds::resources::core::namespace;
use kinds::resources::strategy;
use serde_json::{Value, json};
use std::sync::Arc;

/// What of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status, where that is apart.
    Whole,
    Status,
    Finalize,
    /// What a subresource with code of its own has made, which no strategy looks at.
    AsMade,
}

pub(crate) async fn serve(call: &Call, target: &Target) -> Result<Reply, StatusError> {
    replace(call, target, Part::Whole).await
}

/// PUT of the object's path or one of its parts'.
pub(crate) async fn replace(
    call: &Call,
    target: &Target,
    part: Part,
) -> Result<Reply, StatusError> {
    let accept = call.accept()?;
    let include = call.include()?;
    let options = WriteOptions::read(call, "UpdateOptions")?;
    let (mut object, mut warnings) =
        write::decode_body(call, write::schema_of(target.kind), options.validation)?;
    write::put_in_namespace(target, &mut object)?;
    write::check_name(target, &object)?;
    write::default(target.kind, &mut object);
    let manager = Manager {
        name: &options.manager,
        subresource: part.subresource(),
    };
    let unversioned = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
        .is_empty();
    let intent = if part == Part::Status {
        Intent::Status
    } else {
        Intent::Update
    };
    let made = change(
        call,
        target,
        part,
        &options,
        |_, _| {
            if unversioned && !target.kind.unconditional_update && part == Part::Whole {
                let error = FieldError::invalid(
                    "metadata.resourceVersion",
                    0,
                    "must be specified for an update",
                );
                return Err(StatusError::invalid(
                    target.kind.group,
                    target.kind.plural,
                    &target.name,
                    &[error],
                ));
            }
            Ok(Made {
                new: object.clone(),
                intent: intent.clone(),
                warnings: Vec::new(),
            })
        },
        Some(manager),
    )
    .await;
    let (code, (shown, more)) = match made {
        Err(error)
            if error.code == 404
                && error.reason == "NotFound"
                && target.kind.put_creates
                && part == Part::Whole =>
        {
            check_no_version(target, &object)?;
            let made = create::create(
                call,
                target,
                object,
                &options,
                Intent::Create,
                Some(manager),
            );
            (201, made.await?)
        }
        made => (200, made?),
    };
    warnings.extend(more);
    Ok(
        Reply::object(accept, target.kind, code, &shown, include, call.now_ms())
            .with_warnings(warnings),
    )
}

/// A PUT that would create must not name a version.
fn check_no_version(target: &Target, object: &Value) -> Result<(), StatusError> {
    match object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
    {
        "" | "0" => Ok(()),
        _ => Err(target.not_found()),
    }
}

impl Part {
    pub const fn subresource(self) -> &'static str {
        match self {
            Self::Whole | Self::AsMade => "",
            Self::Status => "status",
            Self::Finalize => "finalize",
        }
    }
}

/// What a write makes of the version that was read.
pub(crate) struct Made {
    pub new: Value,
    pub intent: Intent,
    pub warnings: Vec<String>,
}

/// Changes the object that the target names. `make` gets its present version and the time; `booked`: who owns what it changes; None: that is settled. Gives what is
/// there afterwards, and warnings.
pub(crate) async fn change(
    call: &Call,
    target: &Target,
    part: Part,
    options: &WriteOptions,
    mut make: impl FnMut(&Value, &str) -> Result<Made, StatusError>,
    booked: Option<Manager<'_>>,
) -> Result<(Shown, Vec<String>), StatusError> {
    let (kind, key) = (target.kind, target.key());
    let (event, (shown, warnings)) = write::settle(call, |view| {
        let current = view.get(&key).ok_or_else(|| target.not_found())?;
        let old = current.to_value();
        let context = call.context();
        let Made {
            mut new,
            intent,
            mut warnings,
        } = make(&old, &context.now)?;
        // A patch that names another uid breaks a rule of metadata instead, which validation says.
        let by_uid = call.info.verb != "patch";
        check_preconditions(target, current, &new, by_uid)?;
        if let Some(manager) = booked {
            managed::book(kind, Some(&old), &mut new, manager, &context.now);
        }
        warnings.extend(prepare(kind, part, &old, &mut new, &context)?);
        let claims = service_ips::allocate(
            call,
            view,
            kind,
            &key,
            Some(&old),
            &mut new,
            options.dry_run,
        )?;
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        tidy(&mut new);
        kinds::patch::managed::settle_times(&old, &mut new);
        if new == old {
            return Ok(Plan::Done((Shown::Stored(current.clone()), warnings)));
        }
        if options.dry_run {
            return Ok(Plan::Done((Shown::Made(new), warnings)));
        }
        let mut expectations = vec![write::expect(
            key.clone(),
            Expected::Revision(current.revision()),
        )];
        let mut changes = Vec::new();
        if ends(kind, current, &new) {
            changes.push(Change {
                key: key.clone(),
                what: What::Remove,
            });
            service_ips::release_all(view, kind, &key, &old).join(&mut expectations, &mut changes);
        } else {
            changes.push(Change {
                key: key.clone(),
                what: What::Put {
                    body: write::cut(&new)?,
                    delete_grace_s: None,
                },
            });
            claims.join(&mut expectations, &mut changes);
            changes.extend(binds::beside(&key, Some(&old), &new));
        }
        Ok(Plan::Propose(
            Draft::objects(intent, expectations, changes),
            (Shown::Made(new), warnings),
        ))
    })
    .await?;
    let shown = event
        .and_then(|event| write::after(&event, &key))
        .unwrap_or(shown);
    Ok((shown, warnings))
}

fn prepare(
    kind: &Kind,
    part: Part,
    old: &Value,
    new: &mut Value,
    context: &Context,
) -> Result<Vec<String>, StatusError> {
    match part {
        Part::Whole => strategy::update(kind, old, new, context),
        Part::Status => strategy::update_status(kind, old, new, context),
        Part::Finalize => {
            kinds::resources::metadata::prepare_update(old, new);
            namespace::prepare_finalize(old, new);
            Ok(Vec::new())
        }
        Part::AsMade => Ok(Vec::new()),
    }
}

/// The uid and the version that the client names, if it does.
fn check_preconditions(
    target: &Target,
    current: &Arc<Object>,
    new: &Value,
    by_uid: bool,
) -> Result<(), StatusError> {
    let named = |field: &str| {
        new["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let version = named("resourceVersion");
    if !matches!(version.as_str(), "" | "0") {
        let revision: u64 = version.parse().map_err(|_| {
            let error = FieldError::invalid(
                "metadata.resourceVersion",
                version.as_str(),
                format!("strconv.ParseUint: parsing {version:?}: invalid syntax"),
            );
            StatusError::invalid(target.kind.group, target.kind.kind, &target.name, &[error])
        })?;
        if revision != current.revision() {
            return Err(target.conflict());
        }
    }
    let uid = named("uid");
    if by_uid && !uid.is_empty() && uid != current.uid().to_string() {
        return Err(uid_conflict(target, &uid, current));
    }
    Ok(())
}

/// The object of that name is another one than is meant.
pub(crate) fn uid_conflict(target: &Target, uid: &str, current: &Object) -> StatusError {
    let place = if target.kind.namespaced {
        format!("{}/{}", target.namespace, target.name)
    } else {
        target.name.clone()
    };
    let text = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{}/{place}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
        target.kind.plural,
        current.uid()
    );
    StatusError::conflict(target.kind.group, target.kind.plural, &target.name, &text)
}

/// Metadata as a body is cut: what is nothing is not there.
fn tidy(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    metadata.retain(|_, value| match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    });
}

/// Nothing holds the deletion any more that began before.
fn ends(kind: &Kind, current: &Object, new: &Value) -> bool {
    current
        .stamps
        .deletion
        .is_some_and(|deletion| deletion.grace_s <= 0)
        && !held(kind, new)
}

/// A finalizer is left, of either sort.
pub(crate) fn held(kind: &Kind, object: &Value) -> bool {
    let some = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    some(&object["metadata"]["finalizers"])
        || (kind.has(Subresource::Finalize) && some(&object["spec"]["finalizers"]))
}

/// `{"kind":"Status",…,"status":"Success","code":201}`: what is posted to a subresource and not shown again.
pub(crate) fn created_status() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

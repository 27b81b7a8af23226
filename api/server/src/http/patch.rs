//! Patch: json, merge and strategic patches of what is there; server-side apply, which also makes what is not.

use super::call::{Call, Target};
use super::managed::{self, Manager};
use super::negotiate::patch_type;
use super::options::WriteOptions;
use super::respond::Reply;
use super::update::{self, Made, Part};
use super::write;
use eventstore::Intent;
use kinds::error::StatusError;
use kinds::patch::{self, PatchType};
use serde_json::Value;

pub(crate) async fn serve(call: &Call, target: &Target) -> Result<Reply, StatusError> {
    change(call, target, Part::Whole).await
}

/// PATCH of the object's path or one of its parts'.
pub(crate) async fn change(call: &Call, target: &Target, part: Part) -> Result<Reply, StatusError> {
    let accept = call.accept()?;
    let include = call.include()?;
    let options = WriteOptions::read(call, "PatchOptions")?;
    let how = patch_type(&call.content_type())?;
    let manager = Manager {
        name: &options.manager,
        subresource: part.subresource(),
    };
    let schema = write::schema_of(target.kind);
    if how == PatchType::Apply {
        return managed::apply(call, target, part, &options).await;
    }
    let intent = if part == Part::Status {
        Intent::Status
    } else {
        Intent::Patch {
            kind: word(how).into(),
        }
    };
    let (shown, warnings) = update::change(
        call,
        target,
        part,
        &options,
        |old, _| {
            let (mut new, warnings) =
                patch::patch(schema, how, old, &call.body, options.validation)?;
            check_place(target, &new)?;
            write::default(target.kind, &mut new);
            Ok(Made {
                new,
                intent: intent.clone(),
                warnings,
            })
        },
        Some(manager),
    )
    .await?;
    Ok(
        Reply::object(accept, target.kind, 200, &shown, include, call.now_ms())
            .with_warnings(warnings),
    )
}

/// A patch may not make it another object.
pub(crate) fn check_place(target: &Target, new: &Value) -> Result<(), StatusError> {
    write::check_name(target, new)?;
    let namespace = new["metadata"]["namespace"].as_str().unwrap_or_default();
    if target.kind.namespaced && !namespace.is_empty() && namespace != target.namespace {
        return Err(StatusError::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            target.namespace
        )));
    }
    Ok(())
}

/// In an intent.
fn word(how: PatchType) -> &'static str {
    match how {
        PatchType::Json => "json",
        PatchType::Merge => "merge",
        PatchType::Strategic => "strategic",
        PatchType::Apply => "apply",
    }
}

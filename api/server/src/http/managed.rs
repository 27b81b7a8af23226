//! Who owns which field (`metadata.managedFields`), and server-side apply, which goes by it.

use super::call::{Call, Target};
use super::create;
use super::options::WriteOptions;
use super::patch::check_place;
use super::query::options_invalid;
use super::respond::Reply;
use super::update::{self, Made, Part};
use super::write;
use eventstore::Intent;
use kinds::error::{FieldError, StatusError};
use kinds::kind::Kind;
use kinds::patch::apply::{Apply, apply as merge};
use kinds::patch::managed;
use serde_json::Value;

/// Times that somebody may make and delete the object between our looking and our making it.
const RACES_MAX: usize = 5;

/// Who writes.
#[derive(Clone, Copy)]
pub(crate) struct Manager<'a> {
    pub name: &'a str,
    /// `""`, `status`, `scale`.
    pub subresource: &'a str,
}

/// Books a write that is no apply: the manager owns what it changed. `new` is what the client sent, with defaults.
pub(crate) fn book(
    kind: &Kind,
    old: Option<&Value>,
    new: &mut Value,
    manager: Manager<'_>,
    now: &str,
) {
    managed::update(
        write::schema_of(kind),
        old,
        new,
        manager.name,
        manager.subresource,
        now,
    );
}

/// Server-side apply: changes what is there, or makes it.
pub(crate) async fn apply(
    call: &Call,
    target: &Target,
    part: Part,
    options: &WriteOptions,
) -> Result<Reply, StatusError> {
    let accept = call.accept()?;
    let include = call.include()?;
    if !options.names_manager {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(options_invalid("PatchOptions", &[error]));
    }
    let force = call.query.flag("force");
    let schema = write::schema_of(target.kind);
    let configure =
        |live: Option<&Value>, now: &str| -> Result<(Value, Vec<String>), StatusError> {
            let how = Apply {
                manager: &options.manager,
                force,
                subresource: part.subresource(),
                now,
                validation: options.validation,
            };
            let (mut object, warnings) = merge(schema, live, &call.body, how)?;
            if live.is_none() {
                write::put_in_namespace(target, &mut object)?;
            }
            check_place(target, &object)?;
            Ok((object, warnings))
        };
    let intent = Intent::Apply {
        manager: options.manager.as_str().into(),
        force,
    };
    let mut races = 0;
    loop {
        let changed = update::change(
            call,
            target,
            part,
            options,
            |old, now| {
                let (mut new, warnings) = configure(Some(old), now)?;
                write::default(target.kind, &mut new);
                Ok(Made {
                    new,
                    intent: intent.clone(),
                    warnings,
                })
            },
            None,
        )
        .await;
        match changed {
            Err(error)
                if error.reason == "NotFound"
                    && error == target.not_found()
                    && part == Part::Whole => {}
            changed => {
                let (shown, warnings) = changed?;
                return Ok(
                    Reply::object(accept, target.kind, 200, &shown, include, call.now_ms())
                        .with_warnings(warnings),
                );
            }
        }
        let (object, mut warnings) = configure(None, &call.core().now().to_string())?;
        match create::create(call, target, object, options, intent.clone(), None).await {
            Err(error) if error.reason == "AlreadyExists" && races < RACES_MAX => races += 1,
            made => {
                let (shown, more) = made?;
                warnings.extend(more);
                return Ok(
                    Reply::object(accept, target.kind, 201, &shown, include, call.now_ms())
                        .with_warnings(warnings),
                );
            }
        }
    }
}

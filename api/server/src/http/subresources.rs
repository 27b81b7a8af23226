//! What is written or read of an object apart from the rest: status, scale, binding, eviction, finalize, log, token.

use super::call::{Call, Target};
use super::delete::{self, DeleteOptions};
use super::log;
use super::managed::Manager;
use super::negotiate::patch_type;
use super::options::WriteOptions;
use super::patch;
use super::read;
use super::respond::Reply;
use super::update::{self, Made, Part};
use super::write;
use crate::timetravel::Moment;
use eventstore::Intent;
use kinds::error::{FieldError, StatusError};
use kinds::kind::Subresource;
use kinds::resources::apps::scale;
use kinds::resources::core::pod::binding;
use kinds::schema::Schema;
use serde_json::{Value, json};

/// A token's shortest life (Kubernetes: 10 minutes).
const TOKEN_S_MIN: i64 = 600;

pub(crate) async fn serve(
    call: &Call,
    target: &Target,
    subresource: Subresource,
    moment: Option<Moment>,
) -> Result<Reply, StatusError> {
    if target.name.is_empty() || (target.kind.namespaced && target.namespace.is_empty()) {
        return Err(StatusError::no_such_path());
    }
    match (subresource, call.info.verb) {
        (Subresource::Status, "get") => read::get(call, target, moment).await,
        (Subresource::Status, "update") => update::replace(call, target, Part::Status).await,
        (Subresource::Status, "patch") => patch::change(call, target, Part::Status).await,
        (Subresource::Finalize, "update") => update::replace(call, target, Part::Finalize).await,
        (Subresource::Scale, "get") => {
            let object = read::find(call, target, moment).await?;
            Ok(Reply::value(
                call.accept()?,
                200,
                &scale::of(&object.to_value()),
            ))
        }
        (Subresource::Scale, "update" | "patch") => rescale(call, target).await,
        (Subresource::Binding, "create") => bind(call, target).await,
        (Subresource::Eviction, "create") => evict(call, target).await,
        (Subresource::Log, "get") => log::serve(call, target, moment).await,
        (Subresource::Token, "create") => token(call, target).await,
        _ => Err(StatusError::method_not_allowed()),
    }
}

/// PUT or PATCH of a Scale: the number alone, through the object's own strategy.
async fn rescale(call: &Call, target: &Target) -> Result<Reply, StatusError> {
    let accept = call.accept()?;
    let patched = call.info.verb == "patch";
    let options = WriteOptions::read(
        call,
        if patched {
            "PatchOptions"
        } else {
            "UpdateOptions"
        },
    )?;
    let manager = Manager {
        name: &options.manager,
        subresource: "scale",
    };
    let schema = schema("autoscaling", "v1", "Scale")?;
    let sent = if patched {
        None
    } else {
        Some(write::decode_body(call, schema, options.validation)?)
    };
    if let Some((sent, _)) = &sent {
        write::check_name(target, sent)?;
    }
    let (shown, warnings) = update::change(
        call,
        target,
        Part::Whole,
        &options,
        |old, _| {
            let from = old["spec"]["replicas"].as_i64().unwrap_or_default();
            let (asked, warnings) = match &sent {
                Some((sent, warnings)) => (sent.clone(), warnings.clone()),
                None => {
                    let (mut asked, warnings) = kinds::patch::patch(
                        schema,
                        patch_type(&call.content_type())?,
                        &scale::of(old),
                        &call.body,
                        options.validation,
                    )?;
                    if let Some(object) = asked.as_object_mut() {
                        object.shift_remove("status");
                    }
                    (asked, warnings)
                }
            };
            let errors = scale::validate(&asked);
            if !errors.is_empty() {
                return Err(StatusError::invalid(
                    "autoscaling",
                    "Scale",
                    &target.name,
                    &errors,
                ));
            }
            let mut new = old.clone();
            scale::apply(&asked, &mut new);
            new["metadata"]["resourceVersion"] = asked["metadata"]["resourceVersion"].clone();
            new["metadata"]["uid"] = asked["metadata"]["uid"].clone();
            let to = new["spec"]["replicas"].as_i64().unwrap_or_default();
            Ok(Made {
                new,
                intent: Intent::Scale { from, to },
                warnings,
            })
        },
        Some(manager),
    )
    .await?;
    Ok(Reply::value(accept, 200, &scale::of(&shown.to_value())).with_warnings(warnings))
}

/// POST of a Binding: the pod's node, once.
pub(crate) async fn bind(call: &Call, target: &Target) -> Result<Reply, StatusError> {
    let accept = call.accept()?;
    let options = WriteOptions::read(call, "CreateOptions")?;
    let (mut binding, warnings) =
        write::decode_body(call, schema("", "v1", "Binding")?, options.validation)?;
    write::put_in_namespace(target, &mut binding)?;
    write::check_name(target, &binding)?;
    let reason = format!("bound by {}", call.user.name);
    let manager = Manager {
        name: &options.manager,
        subresource: "binding",
    };
    update::change(
        call,
        target,
        Part::AsMade,
        &options,
        |old, now| {
            let node = binding["target"]["name"].as_str().unwrap_or_default();
            let mut new = binding::bind(old, &binding, now)?;
            new["metadata"]["resourceVersion"] = binding["metadata"]["resourceVersion"].clone();
            new["metadata"]["uid"] = match binding["metadata"]["uid"].as_str().unwrap_or_default() {
                "" => old["metadata"]["uid"].clone(),
                uid => json!(uid),
            };
            Ok(Made {
                new,
                intent: Intent::Bind {
                    node: node.into(),
                    reason: reason.as_str().into(),
                },
                warnings: Vec::new(),
            })
        },
        Some(manager),
    )
    .await?;
    Ok(Reply::value(accept, 201, &update::created_status()).with_warnings(warnings))
}

/// POST of an Eviction. There are no disruption budgets yet that could forbid it.
async fn evict(call: &Call, target: &Target) -> Result<Reply, StatusError> {
    let accept = call.accept()?;
    let options = WriteOptions::read(call, "CreateOptions")?;
    let (eviction, warnings) = write::decode_body(
        call,
        schema("policy", "v1", "Eviction")?,
        options.validation,
    )?;
    let asked = binding::eviction_options(&target.name, &eviction)?;
    let mut asked = DeleteOptions::from_value(&asked)?;
    asked.dry_run |= options.dry_run;
    let reason = format!("evicted by {}", call.user.name);
    delete::delete(call, target, &asked, &|| Intent::Evict {
        reason: reason.as_str().into(),
    })
    .await?;
    Ok(Reply::value(accept, 201, &update::created_status()).with_warnings(warnings))
}

/// POST of a TokenRequest. Checked as Kubernetes checks it; but nothing signs tokens yet, and it says so.
async fn token(call: &Call, target: &Target) -> Result<Reply, StatusError> {
    let options = WriteOptions::read(call, "CreateOptions")?;
    let (request, _) = write::decode_body(
        call,
        schema("authentication.k8s.io", "v1", "TokenRequest")?,
        options.validation,
    )?;
    read::find(call, target, None).await?;
    if let Some(seconds) = request["spec"]["expirationSeconds"]
        .as_i64()
        .filter(|seconds| *seconds < TOKEN_S_MIN)
    {
        let error = FieldError::invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 10 minutes",
        );
        return Err(StatusError::invalid(
            "authentication.k8s.io",
            "TokenRequest",
            "",
            &[error],
        ));
    }
    Err(StatusError::new(
        501,
        "NotImplemented",
        "this server does not issue service account tokens yet",
        Value::Null,
    ))
}

fn schema(group: &str, version: &str, kind: &str) -> Result<&'static Schema, StatusError> {
    Schema::of_kind(group, version, kind)
        .ok_or_else(|| StatusError::internal(&format!("there is no schema of {kind}")))
}

//! Create: a name, a place that lives, what admission adds, claims, and one proposal that expects the key to be absent.

use super::admission;
use super::binds;
use super::call::{Call, Target};
use super::managed::{self, Manager};
use super::options::WriteOptions;
use super::respond::{Reply, Shown};
use super::service_ips;
use super::write::{self, Plan};
use crate::core::Draft;
use eventstore::{Change, Expected, Intent, Key, What};
use kinds::error::StatusError;
use kinds::resources::strategy;
use serde_json::{Value, json};

/// Names tried for a `generateName` (Kubernetes: 8).
const GENERATED_NAMES_MAX: u32 = 8;

pub(crate) async fn serve(call: &Call, target: &Target) -> Result<Reply, StatusError> {
    let accept = call.accept()?;
    let include = call.include()?;
    let options = WriteOptions::read(call, "CreateOptions")?;
    let (mut object, mut warnings) =
        write::decode_body(call, write::schema_of(target.kind), options.validation)?;
    let version = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    if !matches!(version, "" | "0") {
        return Err(StatusError::unknown(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    write::put_in_namespace(target, &mut object)?;
    let (shown, more) = create(
        call,
        target,
        object,
        &options,
        Intent::Create,
        Some(Manager {
            name: &options.manager,
            subresource: "",
        }),
    )
    .await?;
    warnings.extend(more);
    Ok(
        Reply::object(accept, target.kind, 201, &shown, include, call.now_ms())
            .with_warnings(warnings),
    )
}

/// Makes an object that is decoded and stands in its namespace. `booked`: who owns the fields then; None: they say it themselves. Gives it, and warnings.
pub(crate) async fn create(
    call: &Call,
    target: &Target,
    mut object: Value,
    options: &WriteOptions,
    intent: Intent,
    booked: Option<Manager<'_>>,
) -> Result<(Shown, Vec<String>), StatusError> {
    let kind = target.kind;
    write::default(kind, &mut object);
    admission::wait_for_service_account(call, target, &object).await;
    let generated = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .is_empty();
    let mut names = 0;
    let (event, (key, shown, warnings)) = write::settle(call, |view| {
        let mut object = object.clone();
        let context = call.context();
        if let Some(manager) = booked {
            managed::book(kind, None, &mut object, manager, &context.now);
        }
        let living = admission::admit(call, view, target, &mut object)?;
        let warnings = strategy::create(kind, &mut object, &context)?;
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let key = target.key_of(&name);
        if let Some(there) = view.get(&key) {
            names += 1;
            return Err(exists(target, &name, there.living(), generated));
        }
        if generated && names > GENERATED_NAMES_MAX {
            return Err(exists(target, &name, true, true));
        }
        let claims =
            service_ips::allocate(call, view, kind, &key, None, &mut object, options.dry_run)?;
        if options.dry_run {
            return Ok(Plan::Done((key, write::as_if_made(call, object), warnings)));
        }
        names += 1;
        let mut expectations = vec![write::expect(key.clone(), Expected::Absent)];
        expectations.extend(living.map(|namespace| write::expect(namespace, Expected::Living)));
        let mut changes = vec![Change {
            key: key.clone(),
            what: What::Put {
                body: write::cut(&object)?,
                delete_grace_s: None,
            },
        }];
        claims.join(&mut expectations, &mut changes);
        changes.extend(binds::beside(&key, None, &object));
        Ok(Plan::Propose(
            Draft::objects(intent.clone(), expectations, changes),
            (key, Shown::Made(object), warnings),
        ))
    })
    .await?;
    let shown = event
        .and_then(|event| write::after(&event, &key))
        .unwrap_or(shown);
    Ok((shown, warnings))
}

fn exists(target: &Target, name: &str, living: bool, generated: bool) -> StatusError {
    let (group, plural) = (target.kind.group, target.kind.plural);
    match (generated, living) {
        (true, _) => StatusError::generate_name_conflict(group, plural, name, 1),
        (false, true) => StatusError::already_exists(group, plural, name),
        (false, false) => StatusError::already_exists_and_is_being_deleted(group, plural, name),
    }
}

/// A key as an owner is told in a claim.
pub(crate) fn key_value(key: &Key) -> Value {
    json!({"resource": &*key.resource, "namespace": &*key.namespace, "name": &*key.name})
}

//! Who owns which field: `metadata.managedFields`, kept by the kinds' engine after each write.

use super::write::Manager;
use kinds::error::StatusError;
use kinds::kind::Kind;
use serde_json::Value;

/// After a write that is no apply: the manager owns what it changed.
pub(crate) fn update(
    kind: &Kind,
    old: Option<&Value>,
    new: &mut Value,
    manager: &Manager<'_>,
    now: &str,
) -> Result<(), StatusError> {
    let _ = (kind, old, new, manager, now);
    Ok(())
}

/// Server-side apply.
pub(crate) async fn apply(
    _: &super::Call,
    _: &super::call::Target,
    _: super::update::Part,
    _: &super::options::WriteOptions,
) -> Result<super::Reply, StatusError> {
    Err(StatusError::new(
        501,
        "NotImplemented",
        "server-side apply",
        Value::Null,
    ))
}

//! The owners of an object that is to be what it was: those of then, by the uids that they have now.

use eventstore::{Key, View};
use kinds::kind::Kind;
use kinds::resources::by_kind;
use serde_json::{Value, json};

/// An owner of then: its kind, its key and the uid that it had.
pub(super) type Then<'a> = (&'static Kind, &'a Key, &'a str);

/// The references to owners that live now and may own; None while one that comes back is not there yet. What is of a kind that is not
/// known owns nothing.
pub(super) fn references(
    object: &Value,
    now: &View,
    may_own: impl Fn(Then) -> bool,
    mut comes: impl FnMut(Then) -> bool,
) -> Option<Vec<Value>> {
    let metadata = &object["metadata"];
    let then = metadata["ownerReferences"].as_array();
    let mut owners = Vec::new();
    for reference in then.into_iter().flatten() {
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let Some(kind) = by_kind(text("apiVersion"), text("kind")) else {
            continue;
        };
        let namespace = match kind.namespaced {
            true => metadata["namespace"].as_str().unwrap_or_default(),
            false => "",
        };
        let key = Key::new(kind.resource(), namespace, text("name"));
        let owner = (kind, &key, text("uid"));
        if !may_own(owner) {
            continue;
        }
        match now.get(&key).filter(|owner| owner.living()) {
            Some(living) => {
                let mut reference = reference.clone();
                reference["uid"] = json!(living.uid());
                owners.push(reference);
            }
            None if comes(owner) => return None,
            // It is gone for good, and would take along what it owns.
            None => {}
        }
    }
    Some(owners)
}

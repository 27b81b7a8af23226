//! A pod that is bound through the API, by a Binding or by being made with its node, takes room that the scheduler did not give.
//!
//! Such a write also puts the node's hidden `~binds` key, which the scheduler expects as its world has it: a bind of its own that was
//! decided before is then rejected and decided again, so that no node is overcommitted by it. It must be in the same proposal.

use eventstore::{Body, Change, Key, What};
use reconcilers::World;
use serde_json::{Map, Value};

/// What goes beside the pod, if this write binds it.
pub(crate) fn beside(key: &Key, old: Option<&Value>, new: &Value) -> Option<Change> {
    let node = new["spec"]["nodeName"]
        .as_str()
        .filter(|node| !node.is_empty() && &*key.resource == "pods")?;
    if old.is_some_and(|old| old["spec"]["nodeName"] == node) {
        return None;
    }
    let body = Body::of_claim(node, &Map::new());
    Some(Change {
        key: World::binds_key(node),
        what: What::Put {
            body,
            delete_grace_s: None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn marks_what_binds() {
        let bound = json!({"spec": {"nodeName": "n1"}});
        let unbound = json!({"spec": {}});
        for (resource, old, new, marked) in [
            ("pods", None, &bound, Some("~binds/n1")),
            ("pods", None, &unbound, None),
            ("pods", Some(&unbound), &bound, Some("~binds/n1")),
            ("pods", Some(&bound), &bound, None),
            ("things", None, &bound, None),
        ] {
            let change = beside(&Key::new(resource, "default", "a"), old, new);
            let key = change.map(|change| change.key.to_string());
            assert_eq!(key.as_deref(), marked, "{resource} {old:?} {new}");
        }
    }
}

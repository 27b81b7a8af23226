//! What a new cluster has of an old one's state: which changes make it what was desired at a moment.
//!
//! Nothing of the old one runs any more. So what was observed is gone, and pods that a controller made: it makes others. A pod that
//! somebody made himself comes back under a new uid and bound to nothing; whatever else lives on keeps its uid, what had vanished returns
//! under a new one, and owner references follow. Status is what an object has that was just made.
//!
//! A plan is made from one view, and made again after its changes were made it holds the rest: what waits for its owner's new uid.

use super::owners;
use crate::http::write;
use crate::log;
use eventstore::{Body, Change, Key, Object, View, What};
use kinds::error::StatusError;
use kinds::kind::{Context, Kind, Nature};
use kinds::resources::{by_resource, strategy};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Claims on addresses and ports of services: as they were then.
const CLAIMS: [&str; 2] = ["~clusterips", "~nodeports"];

/// Every object as of the moment.
pub(crate) type Then = BTreeMap<Key, Arc<Object>>;

/// The changes that can be made now, in order, each list of them together. None are left: it is done.
pub(crate) fn plan(
    then: &Then,
    now: &View,
    context: &Context,
) -> Result<Vec<Vec<Change>>, StatusError> {
    let mut steps = Vec::new();
    // Namespaces first, for others live in them.
    let (first, rest): (Vec<_>, Vec<_>) = then
        .values()
        .partition(|object| &*object.key.resource == "namespaces");
    for object in first.into_iter().chain(rest) {
        match wanted(then, now, object, context)? {
            Wanted::Is(new) => steps.extend(becomes(now, object, new)),
            Wanted::Waits | Wanted::Gone => {}
        }
    }
    for current in now.objects() {
        let stays = match then.get(&current.key) {
            Some(object) => !matches!(wanted(then, now, object, context)?, Wanted::Gone),
            None => false,
        };
        if !stays {
            steps.push(vec![Change {
                key: current.key.clone(),
                what: What::Remove,
            }]);
        }
    }
    Ok(steps)
}

enum Wanted {
    Is(Body),
    /// Its owner has to come back first.
    Waits,
    Gone,
}

fn wanted(
    then: &Then,
    now: &View,
    object: &Object,
    context: &Context,
) -> Result<Wanted, StatusError> {
    let resource = &*object.key.resource;
    // As they were: of the plain log's values nothing but their writers knows what they are.
    if CLAIMS.contains(&resource) || resource == log::RESOURCE {
        return Ok(Wanted::Is(object.body()));
    }
    let Some(kind) = by_resource(resource).filter(|kind| kind.nature == Nature::Desired) else {
        return Ok(Wanted::Gone);
    };
    let mut new = object.to_value();
    if !object.living() || (resource == "pods" && has_controller(&new)) {
        return Ok(Wanted::Gone);
    }
    if is_owned(&new) {
        match owners(then, now, &new) {
            None => return Ok(Wanted::Waits),
            // All that owned it are gone, and it would go with them.
            Some(owners) if owners.is_empty() => return Ok(Wanted::Gone),
            Some(owners) => new["metadata"]["ownerReferences"] = Value::Array(owners),
        }
    } else {
        new["metadata"]["ownerReferences"] = Value::Null;
    }
    as_new(kind, &mut new, context);
    Ok(Wanted::Is(write::cut(&new)?))
}

fn becomes(now: &View, object: &Object, body: Body) -> Option<Vec<Change>> {
    let key = &object.key;
    let put = |body| Change {
        key: key.clone(),
        what: What::Put {
            body,
            delete_grace_s: None,
        },
    };
    let remove = || Change {
        key: key.clone(),
        what: What::Remove,
    };
    match now.get(key) {
        None => Some(vec![put(body)]),
        // Under a new uid: what ran of the old one may still run somewhere. One that this plan has made is told by that it is bound to
        // nothing and as it should be.
        Some(current) if current.living() && current.body() == body => None,
        Some(current) if &*key.resource == "pods" || !current.living() => {
            Some(vec![remove(), put(body)])
        }
        Some(_) => Some(vec![put(body)]),
    }
}

/// Who owned it then and comes back, as they are now; None: one of them has to come first.
fn owners(then: &Then, now: &View, object: &Value) -> Option<Vec<Value>> {
    let comes = |(kind, key, uid): owners::Then| {
        let was = then.get(key).filter(|owner| owner.living());
        kind.nature == Nature::Desired && was.is_some_and(|owner| owner.uid().to_string() == uid)
    };
    owners::references(object, now, comes, |_| true)
}

fn is_owned(object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| !owners.is_empty())
}

fn has_controller(object: &Value) -> bool {
    object["metadata"]["ownerReferences"]
        .as_array()
        .is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true))
}

/// As it is when it was just made: without status and place. What was valid then is; the strategy gives the status that comes with it.
fn as_new(kind: &Kind, new: &mut Value, context: &Context) {
    let generation = new["metadata"]["generation"].clone();
    let managed = new["metadata"]["managedFields"].clone();
    if let Some(fields) = new.as_object_mut() {
        fields.shift_remove("status");
    }
    if &*kind.resource() == "pods"
        && let Some(spec) = new["spec"].as_object_mut()
    {
        spec.shift_remove("nodeName");
    }
    let _ = strategy::create(kind, new, context);
    if let Some(metadata) = new["metadata"].as_object_mut() {
        for (field, value) in [("generation", generation), ("managedFields", managed)] {
            match value {
                Value::Null => drop(metadata.shift_remove(field)),
                value => drop(metadata.insert(field.to_owned(), value)),
            }
        }
        if metadata.get("ownerReferences").is_some_and(Value::is_null) {
            metadata.shift_remove("ownerReferences");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventstore::{
        Act, Actor, Cause, Entry, Intent, LEVEL, Position, Proposal, ProposalId, Salt, State, Time,
    };
    use serde_json::json;
    use uuid::Uuid;

    /// The state after these acts, one proposal each.
    fn after(acts: Vec<Act>) -> State {
        let mut state = State::default();
        let found = Act::Found {
            cluster: Uuid::from_u128(1),
            level: LEVEL,
        };
        for act in [found].into_iter().chain(acts) {
            take(&mut state, act);
        }
        state
    }

    fn take(state: &mut State, act: Act) {
        let index = state.view().position.index + 1;
        let proposal = Proposal {
            id: ProposalId {
                uuid: Uuid::from_u128(u128::from(index)),
                attempt: 0,
            },
            actor: Actor::Server {
                name: "test".into(),
            },
            cause: Cause::default(),
            intent: Intent::Update,
            first_sent: index,
            salt: Salt::default(),
            expectations: Vec::new(),
            act,
        };
        let entry = Entry {
            clock: Time::from_s(index as i64),
            proposals: vec![proposal],
        };
        let applied = state.apply(Position { term: 1, index }, &entry);
        assert_eq!(applied.events.len(), 1, "{applied:?}");
    }

    fn all(state: &State) -> Then {
        let objects = state.view().objects();
        objects
            .map(|object| (object.key.clone(), object.clone()))
            .collect()
    }

    fn context() -> Context {
        Context {
            now: "2026-11-21T08:00:00Z".to_owned(),
            user: String::new(),
            suffix: String::new(),
        }
    }

    /// An object as it lies in the state.
    fn object(resource: &str, namespace: &str, name: &str, mut object: Value) -> Act {
        object["metadata"]["name"] = json!(name);
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        Act::Objects(vec![Change {
            key: Key::new(resource, namespace, name),
            what: What::Put {
                body: write::cut(&object).unwrap(),
                delete_grace_s: None,
            },
        }])
    }

    fn pod(owner: Option<&Value>) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"ownerReferences": owner.map_or(json!([]), |owner| json!([owner]))},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIP": "10.1.1.1", "conditions": [{"type": "Ready", "status": "True"}]},
        })
    }

    #[test]
    fn nothing_comes_back_that_was_only_observed() {
        let mut state = after(vec![
            object(
                "namespaces",
                "",
                "shop",
                json!({"apiVersion": "v1", "kind": "Namespace"}),
            ),
            object(
                "nodes",
                "",
                "n1",
                json!({"apiVersion": "v1", "kind": "Node", "status": {"phase": "Running"}}),
            ),
            object(
                "coordination.k8s.io/leases",
                "shop",
                "n1",
                json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"holderIdentity": "n1"}}),
            ),
            object(
                "events",
                "shop",
                "e",
                json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {}}),
            ),
            object(
                "discovery.k8s.io/endpointslices",
                "shop",
                "web-1",
                json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": []}),
            ),
            object("pods", "shop", "bare", pod(None)),
            object(
                "apps/deployments",
                "shop",
                "web",
                json!({
                    "apiVersion": "apps/v1", "kind": "Deployment",
                    "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
                    "status": {"replicas": 2, "readyReplicas": 2, "observedGeneration": 1},
                }),
            ),
            object(
                "configmaps",
                "shop",
                "a",
                json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"colour": "red"}}),
            ),
        ]);
        let key = |resource: &str, name: &str| Key::new(resource, "shop", name);
        let deployment = key("apps/deployments", "web");
        let uid = |state: &State, key: &Key| state.view().get(key).unwrap().uid();
        let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "controller": true, "uid": uid(&state, &deployment)});
        let mut set = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"ownerReferences": [owner]},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        });
        set["status"] = json!({"replicas": 2, "readyReplicas": 2});
        let replica_set = key("apps/replicasets", "web-1");
        take(&mut state, object("apps/replicasets", "shop", "web-1", set));
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "controller": true, "uid": uid(&state, &replica_set)});
        take(
            &mut state,
            object("pods", "shop", "web-1-x", pod(Some(&owner))),
        );

        let (then, was) = (all(&state), state.clone());
        for plans in 0.. {
            assert!(plans < 5, "it does not come to rest");
            let steps = plan(&then, state.view(), &context()).unwrap();
            if steps.is_empty() {
                break;
            }
            for step in steps {
                take(&mut state, Act::Objects(step));
            }
        }
        let there: Vec<String> = all(&state).keys().map(Key::to_string).collect();
        assert_eq!(
            there,
            [
                "apps/deployments/shop/web",
                "apps/replicasets/shop/web-1",
                "configmaps/shop/a",
                "namespaces/shop",
                "pods/shop/bare",
            ]
        );
        let value = |state: &State, key: &Key| state.view().get(key).unwrap().to_value();
        let bare = key("pods", "bare");
        let now = value(&state, &bare);
        assert_ne!(uid(&state, &bare), uid(&was, &bare), "{now}");
        assert_eq!(now["spec"]["nodeName"], Value::Null, "{now}");
        assert_eq!(now["status"]["phase"], "Pending", "{now}");
        for field in ["podIP", "conditions"] {
            assert_eq!(now["status"][field], Value::Null, "{now}");
        }
        for key in [&deployment, &replica_set] {
            let now = value(&state, key);
            assert_eq!(uid(&state, key), uid(&was, key), "{now}");
            for field in ["readyReplicas", "observedGeneration"] {
                assert_eq!(now["status"][field], Value::Null, "{now}");
            }
        }
        let now = value(&state, &replica_set);
        assert_eq!(
            now["metadata"]["ownerReferences"][0]["uid"],
            json!(uid(&state, &deployment)),
            "{now}"
        );
        let map = key("configmaps", "a");
        assert_eq!(
            state.view().get(&map).unwrap().revision(),
            was.view().get(&map).unwrap().revision(),
            "it is as it was"
        );
    }

    fn put(name: &str, value: &'static [u8]) -> Act {
        let body = Body {
            head: bytes::Bytes::new(),
            tail: value.into(),
        };
        Act::Objects(vec![Change {
            key: Key::new(log::RESOURCE, "", name),
            what: What::Put {
                body,
                delete_grace_s: None,
            },
        }])
    }

    #[test]
    fn values_of_the_plain_log_come_back_as_they_were() {
        let then = after(vec![put("was", b"\xff{"), put("stays", b"")]);
        let then = all(&then);
        let mut acts = vec![put("was", b"\xff{"), put("stays", b"")];
        acts.extend([put("was", b"other"), put("came", b"later")]);
        let now = after(acts);
        let mut steps = plan(&then, now.view(), &context()).unwrap();
        let Act::Objects(back) = put("was", b"\xff{") else {
            unreachable!("a put is of objects");
        };
        let gone = vec![Change {
            key: Key::new(log::RESOURCE, "", "came"),
            what: What::Remove,
        }];
        steps.sort_by_key(|step| step[0].key.clone());
        assert_eq!(steps, [gone, back]);
    }
}

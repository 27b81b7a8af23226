//! The past written forward: which steps make desired state what it was at a moment.
//!
//! A plan is made from one view, and made again after some of its steps it holds the rest: what is owned waits for its owner, whose new uid
//! is the log's to give. A living object keeps its uid, its status and where it runs; one that vanished comes back under a new uid and without
//! status; what came since goes as a delete would take it. What has a controller is left to it, and what is observed is left to whoever
//! observes it.

use super::Moment;
use super::diff::{changed, whole};
use super::owners;
use crate::http::delete::{self, DeleteOptions};
use crate::http::write;
use crate::http::{Call, Target, service_ips};
use eventstore::{Change, Expectation, Expected, Intent, Key, Object, View, What};
use kinds::error::StatusError;
use kinds::kind::{Kind, Nature};
use kinds::resources::{KINDS, strategy};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Objects that a plan looks at on either side.
const OBJECTS_MAX: usize = 200_000;
/// Of differences that an answer shows; behind it steps are named without theirs.
const SHOWN_BYTES: usize = 16 << 20;

/// What is restored: all, a namespace with what is in it, or one object.
pub(super) struct Scope {
    pub namespace: Option<String>,
    pub object: Option<(&'static Kind, Key)>,
}

/// One object's way back.
pub(super) struct Step {
    pub key: Key,
    pub change: &'static str,
    pub diff: Vec<Value>,
    pub expectations: Vec<Expectation>,
    pub changes: Vec<Change>,
}

/// What can't be brought back now, and why.
pub(super) struct Left {
    pub key: Key,
    pub why: String,
}

#[derive(Default)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
    pub left: Vec<Left>,
    /// What waits for its owner. With no steps left that might bring it, it is left too.
    pub waiting: Vec<Left>,
}

struct Planner<'a> {
    call: &'a Call,
    view: &'a View,
    then: &'a Moment,
    scope: &'a Scope,
    restored: &'a BTreeSet<Key>,
    plan: Plan,
    /// The namespaces that this plan makes.
    namespaces: BTreeSet<Key>,
}

/// `restored`: what an earlier plan has put back, and whoever changed it again has the last word on, a controller for one.
pub(super) fn plan(
    call: &Call,
    view: &View,
    then: &Moment,
    scope: &Scope,
    restored: &BTreeSet<Key>,
) -> Result<Plan, StatusError> {
    let mut planner = Planner {
        call,
        view,
        then,
        scope,
        restored,
        plan: Plan::default(),
        namespaces: BTreeSet::new(),
    };
    // Namespaces first, for others live in them.
    let (first, rest): (Vec<_>, Vec<_>) = KINDS
        .iter()
        .filter(|kind| kind.nature == Nature::Desired)
        .partition(|kind| &*kind.resource() == "namespaces");
    for kind in first.into_iter().chain(rest) {
        planner.kind(kind)?;
    }
    // What goes, last.
    let steps = &mut planner.plan.steps;
    steps.sort_by_key(|step| step.change == "deleted");
    Ok(planner.plan)
}

impl Planner<'_> {
    fn kind(&mut self, kind: &'static Kind) -> Result<(), StatusError> {
        let mut before = objects(self.then, kind, self.scope)?;
        let mut now = objects(&Moment::now(self.view.clone()), kind, self.scope)?;
        before.retain(|key, _| !self.restored.contains(key));
        now.retain(|key, _| !self.restored.contains(key));
        for (key, current) in now {
            match before.remove(&key) {
                Some(past) => self.update(kind, &key, &past, &current)?,
                None => self.remove(kind, &key, &current)?,
            }
        }
        for (key, past) in before {
            self.create(kind, &key, &past)?;
        }
        Ok(())
    }

    fn update(
        &mut self,
        kind: &'static Kind,
        key: &Key,
        past: &Arc<Object>,
        current: &Arc<Object>,
    ) -> Result<(), StatusError> {
        let (then, now) = (past.to_value(), current.to_value());
        if has_controller(&now) || has_controller(&then) {
            return Ok(());
        }
        let mut new = now.clone();
        take_desired(kind, &then, &now, &mut new);
        let Some(owners) = self.owners(key, &then) else {
            return Ok(());
        };
        new["metadata"]["ownerReferences"] = owners;
        drop_empty(&mut new["metadata"]);
        if new == now {
            return Ok(());
        }
        if !current.living() {
            self.left(key, "it is being deleted: restore it again once it is gone");
            return Ok(());
        }
        let context = self.call.context();
        // What may not change does change here: it was so already, and was valid then. The strategy has counted the generation.
        let _ = strategy::update(kind, &now, &mut new, &context);
        new["metadata"]["managedFields"] = then["metadata"]["managedFields"].clone();
        drop_empty(&mut new["metadata"]);
        let claims =
            service_ips::allocate(self.call, self.view, kind, key, Some(&now), &mut new, false)?;
        let mut step = Step {
            key: key.clone(),
            change: "updated",
            diff: changed(&now, &new),
            expectations: vec![write::expect(
                key.clone(),
                Expected::Revision(current.revision()),
            )],
            changes: vec![put(key, &new)?],
        };
        claims.join(&mut step.expectations, &mut step.changes);
        self.plan.steps.push(step);
        Ok(())
    }

    fn create(
        &mut self,
        kind: &'static Kind,
        key: &Key,
        past: &Arc<Object>,
    ) -> Result<(), StatusError> {
        let mut new = past.to_value();
        if has_controller(&new) || !past.living() {
            return Ok(());
        }
        let Some(owners) = self.owners(key, &new) else {
            return Ok(());
        };
        new["metadata"]["ownerReferences"] = owners;
        let mut expectations = vec![write::expect(key.clone(), Expected::Absent)];
        if !key.namespace.is_empty() {
            let namespace = Key::namespace_object(key.namespace.clone());
            match self.view.get(&namespace) {
                Some(there) if there.living() => {
                    expectations.push(write::expect(namespace, Expected::Living));
                }
                Some(_) => {
                    self.left(key, "its namespace is being deleted");
                    return Ok(());
                }
                // It is made in the same event, before this; what is cut off to a later one is planned again.
                None if self.namespaces.contains(&namespace) => {
                    expectations.push(write::expect(namespace, Expected::Absent));
                }
                None => {
                    self.left(key, "its namespace is gone: restore that, or make it first");
                    return Ok(());
                }
            }
        }
        as_new(kind, &mut new);
        let context = self.call.context();
        let managed = new["metadata"]["managedFields"].take();
        let _ = strategy::create(kind, &mut new, &context);
        new["metadata"]["managedFields"] = managed;
        drop_empty(&mut new["metadata"]);
        let allocate = |new: &mut Value| {
            service_ips::allocate(self.call, self.view, kind, key, None, new, false)
        };
        let claims = match allocate(&mut new) {
            Ok(claims) => claims,
            // Somebody else has what it held: it gets others.
            Err(_) => {
                forget_claims(&mut new);
                allocate(&mut new)?
            }
        };
        let mut step = Step {
            key: key.clone(),
            change: "created",
            diff: changed(&whole(&Value::Null), &whole(&new)),
            expectations,
            changes: vec![put(key, &new)?],
        };
        claims.join(&mut step.expectations, &mut step.changes);
        if &*key.resource == "namespaces" {
            self.namespaces.insert(key.clone());
        }
        self.plan.steps.push(step);
        Ok(())
    }

    fn remove(
        &mut self,
        kind: &'static Kind,
        key: &Key,
        current: &Arc<Object>,
    ) -> Result<(), StatusError> {
        let namespace = Key::namespace_object(key.namespace.clone());
        let goes_with_namespace = !key.namespace.is_empty()
            && !self
                .view
                .get(&namespace)
                .is_some_and(|there| there.living());
        if !current.living() || has_controller(&current.to_value()) || goes_with_namespace {
            return Ok(());
        }
        let target = Target {
            kind,
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
        };
        let options = DeleteOptions::default();
        // The intent is the restore's own, of the whole.
        let intent = Intent::DeleteCollection;
        let Some(draft) = delete::draft(self.view, &target, current, &options, intent)? else {
            return Ok(());
        };
        let eventstore::Act::Objects(changes) = draft.act else {
            return Ok(());
        };
        self.plan.steps.push(Step {
            key: key.clone(),
            change: "deleted",
            diff: changed(&whole(&current.to_value()), &whole(&Value::Null)),
            expectations: draft.expectations,
            changes,
        });
        Ok(())
    }

    /// Who owned it then, as they are now; None: one of them has to come back first, and it waits.
    fn owners(&mut self, key: &Key, then: &Value) -> Option<Value> {
        let mut missing = None;
        let comes = |(kind, key, _): owners::Then| {
            let comes = kind.nature == Nature::Desired
                && matches!(self.then.get(key), Ok(Some(owner)) if owner.living());
            if comes {
                missing = Some(key.clone());
            }
            comes
        };
        let owners = owners::references(then, self.view, |_| true, comes);
        if let (None, Some(owner)) = (&owners, missing) {
            self.plan.waiting.push(Left {
                key: key.clone(),
                why: format!("its owner {owner} is not there: restore it again once that is"),
            });
        }
        owners.map(Value::Array)
    }

    fn left(&mut self, key: &Key, why: &str) {
        self.plan.left.push(Left {
            key: key.clone(),
            why: why.to_owned(),
        });
    }
}

/// A kind's objects at a moment, as far as the scope has them.
fn objects(
    moment: &Moment,
    kind: &'static Kind,
    scope: &Scope,
) -> Result<BTreeMap<Key, Arc<Object>>, StatusError> {
    let resource = kind.resource();
    let one = |key: &Key| -> Result<BTreeMap<Key, Arc<Object>>, StatusError> {
        let found = moment.get(key)?;
        Ok(found
            .map(|object| (key.clone(), object))
            .into_iter()
            .collect())
    };
    if let Some((of, key)) = &scope.object {
        return if of.resource() == resource {
            one(key)
        } else {
            Ok(BTreeMap::new())
        };
    }
    if let Some(namespace) = &scope.namespace {
        if resource == "namespaces" {
            return one(&Key::namespace_object(namespace.as_str()));
        }
        if !kind.namespaced {
            return Ok(BTreeMap::new());
        }
    }
    let chunk = moment.chunk(&resource, scope.namespace.as_deref(), None, OBJECTS_MAX)?;
    if chunk.more {
        return Err(StatusError::bad_request(format!(
            "there are more than {OBJECTS_MAX} {resource}: restore namespace by namespace"
        )));
    }
    let objects = chunk.objects.into_iter();
    Ok(objects.map(|object| (object.key.clone(), object)).collect())
}

fn has_controller(object: &Value) -> bool {
    object["metadata"]["ownerReferences"]
        .as_array()
        .is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true))
}

/// The controller's count of rollouts, of which a restore is one more.
const ROLLOUT: &str = "deployment.kubernetes.io/revision";
/// Of metadata, what people say of an object.
const DESIRED_METADATA: &[&str] = &["annotations", "finalizers", "labels"];

/// All that was desired then, in the object as it is now.
fn take_desired(kind: &Kind, then: &Value, now: &Value, new: &mut Value) {
    let kept = ["apiVersion", "kind", "metadata", "status"];
    let (Some(past), Some(fields)) = (then.as_object(), new.as_object_mut()) else {
        return;
    };
    fields.retain(|field, _| kept.contains(&field.as_str()) || past.contains_key(field));
    for (field, value) in past {
        if !kept.contains(&field.as_str()) {
            fields.insert(field.clone(), value.clone());
        }
    }
    for field in DESIRED_METADATA {
        new["metadata"][*field] = then["metadata"][*field].clone();
    }
    if &*kind.resource() == "apps/deployments" {
        let counted = &now["metadata"]["annotations"][ROLLOUT];
        match new["metadata"]["annotations"].as_object_mut() {
            Some(annotations) if counted.is_null() => drop(annotations.shift_remove(ROLLOUT)),
            Some(annotations) => drop(annotations.insert(ROLLOUT.to_owned(), counted.clone())),
            None if counted.is_null() => {}
            None => new["metadata"]["annotations"] = json!({ROLLOUT: counted}),
        }
    }
    match &*kind.resource() {
        // It runs where it runs.
        "pods" => new["spec"]["nodeName"] = now["spec"]["nodeName"].clone(),
        // It is reached where it is reached.
        "services" => {
            for field in ["clusterIP", "clusterIPs"] {
                new["spec"][field] = now["spec"][field].clone();
            }
        }
        _ => {}
    }
    if let Some(spec) = new.get_mut("spec") {
        drop_empty(spec);
    }
}

/// As somebody would make it anew.
fn as_new(kind: &Kind, new: &mut Value) {
    if let Some(fields) = new.as_object_mut() {
        fields.shift_remove("status");
    }
    if let Some(metadata) = new["metadata"].as_object_mut() {
        for field in [
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            metadata.shift_remove(field);
        }
    }
    if &*kind.resource() == "pods"
        && let Some(spec) = new["spec"].as_object_mut()
    {
        spec.shift_remove("nodeName");
    }
}

fn forget_claims(new: &mut Value) {
    if let Some(spec) = new["spec"].as_object_mut() {
        for field in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
            spec.shift_remove(field);
        }
    }
    for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            port.shift_remove("nodePort");
        }
    }
}

fn drop_empty(part: &mut Value) {
    if let Some(fields) = part.as_object_mut() {
        let empty = |value: &Value| match value {
            Value::Null => true,
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        let gone: Vec<String> = [
            "annotations",
            "finalizers",
            "labels",
            "managedFields",
            "nodeName",
            "ownerReferences",
            "clusterIP",
            "clusterIPs",
        ]
        .into_iter()
        .filter(|field| fields.get(*field).is_some_and(empty))
        .map(str::to_owned)
        .collect();
        for field in gone {
            fields.shift_remove(&field);
        }
    }
}

fn put(key: &Key, object: &Value) -> Result<Change, StatusError> {
    Ok(Change {
        key: key.clone(),
        what: What::Put {
            body: write::cut(object)?,
            delete_grace_s: None,
        },
    })
}

/// Steps as people read them.
#[derive(Default)]
pub(super) struct Shown {
    pub items: Vec<Value>,
    /// Of all differences.
    bytes: usize,
}

impl Shown {
    pub fn extend(&mut self, steps: &[Step]) {
        for step in steps {
            let mut item = Map::new();
            item.insert(
                "key".into(),
                json!({"resource": &*step.key.resource, "namespace": &*step.key.namespace, "name": &*step.key.name}),
            );
            item.insert("change".into(), json!(step.change));
            self.bytes += json!(step.diff).to_string().len();
            if self.bytes <= SHOWN_BYTES {
                item.insert("diff".into(), json!(step.diff));
            } else {
                item.insert("diff".into(), json!([]));
                item.insert("diffLeftOut".into(), json!(true));
            }
            self.items.push(Value::Object(item));
        }
    }
}

//! EndpointSlices: where the pods of a Service are.
//!
//! `endpoints` reads a Service and its pods into endpoints, grouped by the ports they listen on; here they are laid into slices of at most
//! a hundred, moving as few as may be: an endpoint stays in the slice it is in. Source: KEP-752; k8s.io/endpointslice.

mod endpoints;

use crate::change::{
    absent, controller_reference, delete, grow_older, living_namespace, map_at, put, unchanged,
};
use crate::template::suffix;
use crate::world::{Kind, Service, Thing, resource};
use crate::{Decision, Draft, Reconciler, RoundState, Touched, Waiting, Wakes, World};
use endpoints::Group;
use eventstore::{Expectation, Intent, Key, Time};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub const NAME: &str = "endpointslice-controller";

/// Endpoints a slice.
const MOST_ENDPOINTS: usize = 100;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const MANAGED_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

#[derive(Debug)]
pub struct EndpointSlices;

impl Reconciler for EndpointSlices {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wakes(&self, touched: &Touched, world: &World, wakes: &mut Wakes) {
        if let Some(key) = touched.of(resource::SERVICES) {
            wakes.wake(key.clone());
        }
        for thing in touched.versions() {
            let namespace = &thing.object.key.namespace;
            match &thing.kind {
                Kind::EndpointSlice(_) => {
                    if let Some(service) = thing.meta.labels.get(SERVICE_LABEL) {
                        wakes.wake(Key::new(
                            resource::SERVICES,
                            namespace.clone(),
                            service.clone(),
                        ));
                    }
                }
                Kind::Pod(_) => {
                    for service in world.list(resource::SERVICES, Some(namespace)) {
                        if matches!(&service.kind, Kind::Service(view) if view.selects(&thing.meta.labels))
                        {
                            wakes.wake(service.object.key.clone());
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn keys(&self, world: &World, wakes: &mut Wakes) {
        world
            .list(resource::SERVICES, None)
            .for_each(|thing| wakes.wake(thing.object.key.clone()));
    }

    fn decide(&self, world: &World, key: &Key, _: &mut RoundState, _: Time) -> Decision {
        let Some(thing) = world.thing(key) else {
            return Decision::nothing();
        };
        match &thing.kind {
            Kind::Service(service) => decide(world, thing, service),
            Kind::Unreadable(why) => Decision::wait(Waiting::Unreadable { why: why.clone() }),
            _ => Decision::nothing(),
        }
    }
}

/// A slice as it is to be.
struct Slice {
    /// The one that is there already.
    thing: Option<Arc<Thing>>,
    ports: Value,
    endpoints: Vec<Value>,
}

fn decide(world: &World, service: &Arc<Thing>, view: &Service) -> Decision {
    if view.selector.is_empty()
        || view.external_name
        || !service.object.living()
        || !world.namespace_lives(&service.object.key.namespace)
    {
        return Decision::nothing();
    }
    let existing: Vec<&Arc<Thing>> = world
        .controlled(service.object.uid(), resource::ENDPOINT_SLICES)
        .filter(|slice| {
            slice.object.living()
                && slice
                    .meta
                    .labels
                    .get(MANAGED_LABEL)
                    .is_some_and(|manager| &**manager == MANAGER)
        })
        .collect();
    let slices = lay_out(&existing, endpoints::groups(world, service, view));
    let mut expectations: Vec<Expectation> = Vec::new();
    let mut changes = Vec::new();
    let kept: BTreeSet<&Key> = slices
        .iter()
        .filter_map(|slice| slice.thing.as_ref())
        .map(|thing| &thing.object.key)
        .collect();
    for slice in existing
        .iter()
        .filter(|slice| !kept.contains(&slice.object.key))
    {
        expectations.push(unchanged(slice));
        changes.extend(delete(slice));
    }
    let mut made = 0_u64;
    for slice in &slices {
        match &slice.thing {
            Some(thing) => {
                let before = thing.object.to_value();
                let mut object = before.clone();
                fill(&mut object, slice, service, view);
                if object != before {
                    grow_older(&mut object);
                    expectations.push(unchanged(thing));
                    changes.push(put(&thing.object.key, &object));
                }
            }
            None => {
                let (key, mut object) = new_slice(world, service, &mut made);
                fill(&mut object, slice, service, view);
                expectations.push(absent(&key));
                changes.push(put(&key, &object));
            }
        }
    }
    if changes.is_empty() {
        return Decision::nothing();
    }
    expectations.extend([
        unchanged(service),
        living_namespace(&service.object.key.namespace),
    ]);
    Decision::propose(Draft {
        intent: Intent::Reconcile {
            what: "publish endpoints".into(),
        },
        expectations,
        changes,
    })
}

/// Lays endpoints into slices: what is in a slice stays there, what is new fills the slices that are there, then new ones.
fn lay_out(existing: &[&Arc<Thing>], groups: Vec<Group>) -> Vec<Slice> {
    let mut free: Vec<(Arc<Thing>, Value)> = existing
        .iter()
        .map(|thing| ((*thing).clone(), thing.object.to_value()))
        .collect();
    let mut slices = Vec::new();
    for group in groups {
        let mut left: BTreeMap<String, Value> = group.endpoints;
        let (same_ports, others): (Vec<_>, Vec<_>) = free
            .into_iter()
            .partition(|(_, object)| object["ports"] == group.ports);
        free = others;
        let mut laid: Vec<Slice> = Vec::new();
        for (thing, object) in same_ports {
            let written = object["endpoints"].as_array().cloned().unwrap_or_default();
            let endpoints = written
                .iter()
                .filter_map(|endpoint| left.remove(&endpoints::name(endpoint)))
                .take(MOST_ENDPOINTS)
                .collect();
            laid.push(Slice {
                thing: Some(thing),
                ports: group.ports.clone(),
                endpoints,
            });
        }
        let mut left = left.into_values();
        for slice in &mut laid {
            let room = MOST_ENDPOINTS.saturating_sub(slice.endpoints.len());
            slice.endpoints.extend(left.by_ref().take(room));
        }
        laid.retain(|slice| !slice.endpoints.is_empty());
        loop {
            let endpoints: Vec<Value> = left.by_ref().take(MOST_ENDPOINTS).collect();
            if endpoints.is_empty() {
                break;
            }
            laid.push(Slice {
                thing: free.pop().map(|(thing, _)| thing),
                ports: group.ports.clone(),
                endpoints,
            });
        }
        slices.extend(laid);
    }
    if slices.is_empty() {
        // A Service whose pods are nowhere has one empty slice, which says so.
        let thing = existing.first().map(|thing| (*thing).clone());
        slices.push(Slice {
            thing,
            ports: Value::Null,
            endpoints: Vec::new(),
        });
    }
    slices
}

/// Writes a slice's labels, ports and endpoints.
fn fill(object: &mut Value, slice: &Slice, service: &Thing, view: &Service) {
    let mut labels: Map<String, Value> = service
        .meta
        .labels
        .iter()
        .map(|(name, value)| (name.to_string(), json!(&**value)))
        .collect();
    for ours in [SERVICE_LABEL, MANAGED_LABEL, HEADLESS_LABEL] {
        labels.shift_remove(ours);
    }
    if view.headless {
        labels.insert(HEADLESS_LABEL.into(), json!(""));
    }
    labels.insert(MANAGED_LABEL.into(), json!(MANAGER));
    labels.insert(SERVICE_LABEL.into(), json!(&*service.object.key.name));
    map_at(object, "metadata").insert("labels".into(), Value::Object(labels));
    object["endpoints"] = if slice.endpoints.is_empty() {
        Value::Null
    } else {
        Value::Array(slice.endpoints.clone())
    };
    object["ports"] = slice.ports.clone();
}

fn new_slice(world: &World, service: &Thing, made: &mut u64) -> (Key, Value) {
    let owner = &service.object.key;
    loop {
        *made += 1;
        let seed: [&[u8]; 3] = [
            service.object.stamps.uid.as_bytes(),
            &world.revision.to_be_bytes(),
            &made.to_be_bytes(),
        ];
        let key = Key::new(
            resource::ENDPOINT_SLICES,
            owner.namespace.clone(),
            format!("{}-{}", owner.name, suffix(&seed)),
        );
        if world.thing(&key).is_none() {
            let object = json!({
                "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
                "metadata": {
                    "name": &*key.name, "generateName": format!("{}-", owner.name), "namespace": &*key.namespace, "generation": 1,
                    "ownerReferences": [controller_reference(service)],
                },
                "addressType": "IPv4",
            });
            return (key, object);
        }
    }
}

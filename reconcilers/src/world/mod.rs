//! The world: the one projection that all reconcilers share.
//!
//! Every object once, as the bytes that are served anyway and a small typed view parsed once per change, with the indexes that decisions
//! ask for. Persistent: a clone copies pointers, so a round reads one world on a thread of its own while the next events are folded.
//! `from_view` and folding every event give the same world; a test holds that. An object that can't be read as its kind is kept as
//! `Kind::Unreadable` and skipped with that reason; it must never be a panic.

mod deployment;
mod endpoint_slice;
mod event;
mod json;
mod meta;
mod namespace;
mod node;
mod node_use;
mod pod;
mod quantity;
mod replica_set;
mod selector;
mod service;
mod thing;
mod touched;

pub use deployment::{Deployment, IntOrPercent, Strategy};
pub use endpoint_slice::EndpointSlice;
pub use event::Event as EventView;
pub use json::rfc3339;
pub use meta::{Meta, Owner};
pub use namespace::{Namespace, Phase};
pub use node::{Node, Taint};
pub use node_use::{NodeUse, PortUse, weight_of};
pub use pod::{HostPort, NodeTerm, Pod, PodPhase, PreferredTerm, Toleration};
pub use quantity::Resources;
pub use replica_set::ReplicaSet;
pub use selector::{Operator, Requirement, Selector};
pub use service::{Service, ServicePort, TargetPort};
pub use thing::{Kind, Thing, resource};
pub use touched::Touched;

use eventstore::{Event, Happened, Key, Object, Session, Text, View};
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;
use uuid::Uuid;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    /// Of the last event folded.
    pub revision: u64,
    things: OrdMap<Key, Arc<Thing>>,
    sessions: OrdMap<Text, Session>,
    by_uid: OrdMap<Uuid, Key>,
    /// (owner's uid, dependent), for every owner reference.
    dependents: OrdSet<(Uuid, Key)>,
    /// (namespace, what lies in it).
    contents: OrdSet<(Text, Key)>,
    /// (node, pod): bound pods, finished ones too.
    bound: OrdSet<(Text, Key)>,
    /// Pods without a node.
    unbound: OrdSet<Key>,
    /// Pods and replica sets without a controller: what a selector may adopt.
    orphans: OrdSet<Key>,
    /// What the pods bound to a node ask of it.
    uses: OrdMap<Text, NodeUse>,
    /// The revision of a node's `~binds` key: see `binds_key`.
    binds: OrdMap<Text, u64>,
}

/// The hidden resource with one key a node, written by every bind that is not the scheduler's: by the server, in the proposal that
/// binds a pod through the API (a Binding, or a pod made with its nodeName). The scheduler expects it as its world has it, so that
/// what it counted on a node is still all there is when its bind is applied.
const BINDS: &str = "~binds";

impl World {
    /// The world at a view: what a server starts with.
    pub fn from_view(view: &View) -> Self {
        let mut world = Self {
            revision: view.revision,
            ..Self::default()
        };
        for object in view.objects() {
            if object.key.hidden() {
                world.set_hidden(&object.key, Some(object));
            } else {
                world.set(&object.key, Some(object));
            }
        }
        world.sessions = view
            .sessions()
            .map(|(node, session)| (node.clone(), session.clone()))
            .collect();
        world
    }

    /// Folds an event and says what it touched, in order.
    pub fn fold(&mut self, event: &Event) -> Vec<Touched> {
        self.revision = event.revision();
        match &event.envelope.happened {
            Happened::Objects(_) => {
                for folded in event.objects.iter().filter(|folded| folded.key.hidden()) {
                    self.set_hidden(&folded.key, folded.after.as_ref());
                }
                let objects = event.objects.iter().filter(|folded| !folded.key.hidden());
                let touched = objects.map(|folded| {
                    let (before, after) = self.set(&folded.key, folded.after.as_ref());
                    Touched::Object {
                        key: folded.key.clone(),
                        revision: folded.revision,
                        before,
                        after,
                    }
                });
                touched.collect()
            }
            Happened::SessionOpened { node, server } => {
                let session = Session {
                    server: server.clone(),
                    epoch: event.revision(),
                    opened: event.envelope.time,
                    lost: None,
                };
                self.sessions.insert(node.clone(), session);
                vec![Touched::Session {
                    node: node.clone(),
                    revision: event.revision(),
                }]
            }
            Happened::SessionLost { node, epoch } => {
                if let Some(session) = self
                    .sessions
                    .get_mut(node)
                    .filter(|session| session.epoch == *epoch)
                {
                    session.lost = Some(event.envelope.time);
                }
                vec![Touched::Session {
                    node: node.clone(),
                    revision: event.revision(),
                }]
            }
            Happened::Restored { .. } => {
                let ended = std::mem::take(&mut self.sessions).into_iter();
                let touched = ended.map(|(node, _)| Touched::Session {
                    node,
                    revision: event.revision(),
                });
                touched.collect()
            }
            Happened::Founded { .. }
            | Happened::Round(_)
            | Happened::LevelRaised { .. }
            | Happened::Pruned(_)
            | Happened::Held { .. }
            | Happened::Released { .. } => Vec::new(),
        }
    }

    pub fn thing(&self, key: &Key) -> Option<&Arc<Thing>> {
        self.things.get(key)
    }

    /// All of a resource in the order of namespace, then name; of one namespace if one is named.
    pub fn list<'a>(
        &'a self,
        resource: &'a str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Thing>> + 'a {
        let from = Key::new(resource, namespace.unwrap_or(""), "");
        self.things
            .range(from..)
            .take_while(move |(key, _)| {
                &*key.resource == resource
                    && namespace.is_none_or(|namespace| &*key.namespace == namespace)
            })
            .map(|(_, thing)| thing)
    }

    /// Every object, in the order of keys.
    pub fn everything(&self) -> impl Iterator<Item = &Arc<Thing>> {
        self.things.values()
    }

    /// The object with this uid.
    pub fn of_uid(&self, uid: Uuid) -> Option<&Arc<Thing>> {
        self.things.get(self.by_uid.get(&uid)?)
    }

    pub fn session(&self, node: &str) -> Option<&Session> {
        self.sessions.get(node)
    }

    /// What names this uid as an owner.
    pub fn dependents(&self, owner: Uuid) -> impl Iterator<Item = &Arc<Thing>> {
        self.dependents
            .range((owner, Key::new("", "", ""))..)
            .take_while(move |(uid, _)| *uid == owner)
            .filter_map(|(_, key)| self.things.get(key))
    }

    /// What has this uid as its controller, of one resource.
    pub fn controlled<'a>(
        &'a self,
        owner: Uuid,
        resource: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Thing>> + 'a {
        self.dependents
            .range((owner, Key::new(resource, "", ""))..)
            .take_while(move |(uid, key)| *uid == owner && &*key.resource == resource)
            .filter_map(|(_, key)| self.things.get(key))
            .filter(move |thing| {
                thing
                    .meta
                    .controller()
                    .is_some_and(|controller| controller.uid == owner)
            })
    }

    /// What lies in a namespace.
    pub fn contents<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Thing>> + 'a {
        self.contents
            .range((Text::from(namespace), Key::new("", "", ""))..)
            .take_while(move |(lies_in, _)| &**lies_in == namespace)
            .filter_map(|(_, key)| self.things.get(key))
    }

    /// The pods bound to a node.
    pub fn pods_on<'a>(
        &'a self,
        node: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<Thing>, &'a Pod)> + 'a {
        self.bound
            .range((Text::from(node), Key::new("", "", ""))..)
            .take_while(move |(bound_to, _)| &**bound_to == node)
            .filter_map(|(_, key)| self.pod(key))
    }

    /// The pods without a node.
    pub fn unbound(&self) -> impl Iterator<Item = (&Arc<Thing>, &Pod)> {
        self.unbound.iter().filter_map(|key| self.pod(key))
    }

    /// Pods or replica sets of a namespace that have no controller.
    pub fn orphans<'a>(
        &'a self,
        resource: &'a str,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Thing>> + 'a {
        self.orphans
            .range(Key::new(resource, namespace, "")..)
            .take_while(move |key| &*key.resource == resource && &*key.namespace == namespace)
            .filter_map(|key| self.things.get(key))
    }

    /// What the pods bound to a node ask of it; None when there are none.
    pub fn node_use(&self, node: &str) -> Option<&NodeUse> {
        self.uses.get(node)
    }

    pub fn pod(&self, key: &Key) -> Option<(&Arc<Thing>, &Pod)> {
        let thing = self.things.get(key)?;
        match &thing.kind {
            Kind::Pod(pod) => Some((thing, pod)),
            _ => None,
        }
    }

    pub fn node(&self, name: &str) -> Option<(&Arc<Thing>, &Node)> {
        let thing = self.things.get(&Key::new(resource::NODES, "", name))?;
        match &thing.kind {
            Kind::Node(node) => Some((thing, node)),
            _ => None,
        }
    }

    /// The key that every bind by others writes, for a node.
    pub fn binds_key(node: &str) -> Key {
        Key::new(BINDS, "", node)
    }

    /// Its revision; None when nobody but the scheduler ever bound a pod there.
    pub fn binds(&self, node: &str) -> Option<u64> {
        self.binds.get(node).copied()
    }

    /// Whether new objects may be made in a namespace.
    pub fn namespace_lives(&self, name: &str) -> bool {
        self.things
            .get(&Key::namespace_object(name))
            .is_some_and(|thing| thing.object.living())
    }

    /// Puts or removes an object, and keeps every index in step. The typed views before and after.
    fn set(
        &mut self,
        key: &Key,
        object: Option<&Arc<Object>>,
    ) -> (Option<Arc<Thing>>, Option<Arc<Thing>>) {
        let before = self.things.get(key).cloned();
        if let Some(before) = &before {
            self.unindex(before);
        }
        let after = object.map(|object| Arc::new(Thing::read(object)));
        match &after {
            Some(after) => {
                self.things.insert(key.clone(), after.clone());
                self.index(after);
            }
            None => {
                self.things.remove(key);
            }
        }
        (before, after)
    }

    fn set_hidden(&mut self, key: &Key, object: Option<&Arc<Object>>) {
        if &*key.resource != BINDS {
            return;
        }
        match object {
            Some(object) => self.binds.insert(key.name.clone(), object.revision()),
            None => self.binds.remove(&key.name),
        };
    }

    fn index(&mut self, thing: &Arc<Thing>) {
        let key = &thing.object.key;
        self.by_uid.insert(thing.object.uid(), key.clone());
        for owner in &thing.meta.owners {
            self.dependents.insert((owner.uid, key.clone()));
        }
        if !key.namespace.is_empty() {
            self.contents.insert((key.namespace.clone(), key.clone()));
        }
        if matches!(thing.kind, Kind::Pod(_) | Kind::ReplicaSet(_))
            && thing.meta.controller().is_none()
        {
            self.orphans.insert(key.clone());
        }
        if let Kind::Pod(pod) = &thing.kind {
            match &pod.node {
                Some(node) => {
                    self.bound.insert((node.clone(), key.clone()));
                    if !pod.finished() {
                        self.uses.entry(node.clone()).or_default().add(thing, pod);
                    }
                }
                None => {
                    self.unbound.insert(key.clone());
                }
            }
        }
    }

    fn unindex(&mut self, thing: &Arc<Thing>) {
        let key = &thing.object.key;
        self.by_uid.remove(&thing.object.uid());
        for owner in &thing.meta.owners {
            self.dependents.remove(&(owner.uid, key.clone()));
        }
        self.contents.remove(&(key.namespace.clone(), key.clone()));
        self.orphans.remove(key);
        self.unbound.remove(key);
        if let Kind::Pod(pod) = &thing.kind
            && let Some(node) = &pod.node
        {
            self.bound.remove(&(node.clone(), key.clone()));
            let left = self
                .uses
                .get_mut(node)
                .filter(|_| !pod.finished())
                .map(|used| {
                    used.subtract(thing, pod);
                    used.pods
                });
            if left == Some(0) {
                self.uses.remove(node);
            }
        }
    }
}

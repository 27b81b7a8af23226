//! One object in the world: the bytes that are served, its metadata, and its kind's view.

use super::{
    Deployment, EndpointSlice, EventView, Meta, Namespace, Node, Pod, ReplicaSet, Service,
};
use eventstore::{Object, Text};
use serde::de::DeserializeOwned;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub struct Thing {
    pub object: Arc<Object>,
    pub meta: Meta,
    pub kind: Kind,
}

/// What decisions read of an object. Kinds that no reconciler decides about are `Other`: their metadata is all that is needed.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Pod(Box<Pod>),
    Node(Box<Node>),
    ReplicaSet(Box<ReplicaSet>),
    Deployment(Box<Deployment>),
    Namespace(Namespace),
    Service(Box<Service>),
    EndpointSlice(EndpointSlice),
    Event(EventView),
    Other,
    /// It can't be read as its kind.
    Unreadable(String),
}

/// The resources that reconcilers know by name.
pub mod resource {
    pub const CONFIG_MAPS: &str = "configmaps";
    pub const DEPLOYMENTS: &str = "apps/deployments";
    pub const ENDPOINT_SLICES: &str = "discovery.k8s.io/endpointslices";
    pub const EVENTS: &str = "events";
    pub const NAMESPACES: &str = "namespaces";
    pub const NODES: &str = "nodes";
    pub const PODS: &str = "pods";
    pub const REPLICA_SETS: &str = "apps/replicasets";
    pub const SERVICES: &str = "services";
    pub const SERVICE_ACCOUNTS: &str = "serviceaccounts";
}

impl Thing {
    pub fn read(object: &Arc<Object>) -> Self {
        match Meta::read(object) {
            Ok(meta) => Self {
                object: object.clone(),
                meta,
                kind: Kind::read(object),
            },
            Err(why) => Self {
                object: object.clone(),
                meta: Meta::default(),
                kind: Kind::Unreadable(why),
            },
        }
    }

    /// All that holds its deletion: `metadata.finalizers`, and of a namespace `spec.finalizers` too.
    pub fn finalizers(&self) -> impl Iterator<Item = &Text> {
        let own = match &self.kind {
            Kind::Namespace(namespace) => namespace.finalizers.as_slice(),
            _ => &[],
        };
        own.iter().chain(&self.meta.finalizers)
    }
}

impl Kind {
    fn read(object: &Object) -> Self {
        match &*object.key.resource {
            resource::PODS => Self::of(object, |pod| Self::Pod(Box::new(pod))),
            resource::NODES => Self::of(object, |node| Self::Node(Box::new(node))),
            resource::REPLICA_SETS => Self::of(object, |replica_set| {
                Self::ReplicaSet(Box::new(replica_set))
            }),
            resource::DEPLOYMENTS => {
                Self::of(object, |deployment| Self::Deployment(Box::new(deployment)))
            }
            resource::NAMESPACES => Self::of(object, Self::Namespace),
            resource::SERVICES => Self::of(object, |service| Self::Service(Box::new(service))),
            resource::ENDPOINT_SLICES => Self::of(object, Self::EndpointSlice),
            resource::EVENTS => Self::of(object, Self::Event),
            _ => Self::Other,
        }
    }

    fn of<T: Read>(object: &Object, wrap: impl FnOnce(T) -> Self) -> Self {
        match serde_json::from_slice(&object.bytes) {
            Ok(raw) => wrap(T::of(raw)),
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }
}

/// How a kind's view comes from its JSON.
pub(super) trait Read {
    type Json: DeserializeOwned;
    fn of(json: Self::Json) -> Self;
}

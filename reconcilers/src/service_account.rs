//! What every namespace has: the ServiceAccount `default`, and the ConfigMap `kube-root-ca.crt` with the API's certificate authority.
//! Both come back when they are deleted, and the second is put right when it is changed.

use crate::change::{absent, living_namespace, put, unchanged};
use crate::world::resource;
use crate::{Decision, Draft, Reconciler, RoundState, Touched, Wakes, World};
use eventstore::{Intent, Key, Time};
use serde_json::json;

pub const NAME: &str = "serviceaccount-controller";

const ACCOUNT: &str = "default";
const AUTHORITY: &str = "kube-root-ca.crt";

#[derive(Debug)]
pub struct ServiceAccounts {
    /// Of the API servers, PEM; empty: none is published.
    pub root_ca_pem: String,
}

impl Reconciler for ServiceAccounts {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wakes(&self, touched: &Touched, _: &World, wakes: &mut Wakes) {
        let Touched::Object { key, .. } = touched else {
            return;
        };
        match (&*key.resource, &*key.name) {
            (resource::NAMESPACES, _) => wakes.wake(key.clone()),
            (resource::SERVICE_ACCOUNTS, ACCOUNT) | (resource::CONFIG_MAPS, AUTHORITY) => {
                wakes.wake(Key::namespace_object(key.namespace.clone()));
            }
            _ => {}
        }
    }

    fn keys(&self, world: &World, wakes: &mut Wakes) {
        world
            .list(resource::NAMESPACES, None)
            .for_each(|thing| wakes.wake(thing.object.key.clone()));
    }

    fn decide(&self, world: &World, key: &Key, _: &mut RoundState, _: Time) -> Decision {
        if !world.namespace_lives(&key.name) {
            return Decision::nothing();
        }
        let drafts = [account(world, key), self.authority(world, key)];
        Decision {
            drafts: drafts.into_iter().flatten().collect(),
            ..Decision::default()
        }
    }
}

fn account(world: &World, namespace: &Key) -> Option<Draft> {
    let key = Key::new(resource::SERVICE_ACCOUNTS, namespace.name.clone(), ACCOUNT);
    let object = json!({ "kind": "ServiceAccount", "apiVersion": "v1", "metadata": { "name": ACCOUNT, "namespace": &*namespace.name } });
    world.thing(&key).is_none().then(|| Draft {
        intent: Intent::Create,
        expectations: vec![absent(&key), living_namespace(&namespace.name)],
        changes: vec![put(&key, &object)],
    })
}

impl ServiceAccounts {
    fn authority(&self, world: &World, namespace: &Key) -> Option<Draft> {
        if self.root_ca_pem.is_empty() {
            return None;
        }
        let key = Key::new(resource::CONFIG_MAPS, namespace.name.clone(), AUTHORITY);
        let data = json!({ "ca.crt": self.root_ca_pem });
        match world.thing(&key) {
            None => {
                let description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as \
                    the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
                let object = json!({
                    "kind": "ConfigMap", "apiVersion": "v1",
                    "metadata": {
                        "name": AUTHORITY, "namespace": &*namespace.name, "annotations": { "kubernetes.io/description": description },
                    },
                    "data": data,
                });
                let expectations = vec![absent(&key), living_namespace(&namespace.name)];
                Some(Draft {
                    intent: Intent::Create,
                    expectations,
                    changes: vec![put(&key, &object)],
                })
            }
            Some(thing) => {
                let mut object = thing.object.to_value();
                if object["data"] == data || !thing.object.living() {
                    return None;
                }
                object["data"] = data;
                Some(Draft {
                    intent: Intent::Update,
                    expectations: vec![unchanged(thing)],
                    changes: vec![put(&key, &object)],
                })
            }
        }
    }
}

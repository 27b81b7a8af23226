//! What the reconcilers are told from outside, and which reconcilers there are.

use crate::Reconciler;
use crate::deployment::Deployments;
use crate::endpoint_slice::EndpointSlices;
use crate::event_retention::EventRetention;
use crate::garbage::Garbage;
use crate::namespace::Namespaces;
use crate::node_health::NodeHealth;
use crate::pod_garbage::PodGarbage;
use crate::replica_set::{Admission, ReplicaSets};
use crate::scheduler::Scheduler;
use crate::service_account::ServiceAccounts;
use crate::taint_eviction::TaintEviction;

/// Later an object, so that it has history too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a node that came through an agent may stay without a session before it counts as lost. The shell proposes
    /// `session lost` after it; reconcilers act on that event, so they only repeat it in messages.
    pub node_grace_ms: i64,
    /// What a pod made by a controller tolerates `node.kubernetes.io/not-ready:NoExecute` for, in seconds, unless its template says otherwise.
    pub default_not_ready_toleration_s: i64,
    /// The same for `node.kubernetes.io/unreachable:NoExecute`.
    pub default_unreachable_toleration_s: i64,
    /// The certificate authority of the API servers, PEM: `kube-root-ca.crt` of every namespace. Empty: none is published.
    pub root_ca_pem: String,
    /// How long an Event object is kept after it was last seen.
    pub event_ttl_ms: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_grace_ms: 40_000,
            default_not_ready_toleration_s: 300,
            default_unreachable_toleration_s: 300,
            root_ca_pem: String::new(),
            event_ttl_ms: 60 * 60 * 1000,
        }
    }
}

/// Every reconciler, in the order that `Due` numbers them by.
pub fn all(config: &Config) -> Vec<Box<dyn Reconciler>> {
    let admission = Admission {
        not_ready_toleration_s: config.default_not_ready_toleration_s,
        unreachable_toleration_s: config.default_unreachable_toleration_s,
    };
    vec![
        Box::new(NodeHealth),
        Box::new(TaintEviction),
        Box::new(Deployments),
        Box::new(ReplicaSets { admission }),
        Box::new(Scheduler),
        Box::new(EndpointSlices),
        Box::new(Namespaces),
        Box::new(ServiceAccounts {
            root_ca_pem: config.root_ca_pem.clone(),
        }),
        Box::new(Garbage),
        Box::new(PodGarbage),
        Box::new(EventRetention {
            ttl_ms: config.event_ttl_ms,
        }),
    ]
}

//! The first events of a cluster: its id and level, then the objects that a new Kubernetes cluster has.
//!
//! Whoever leads does it, until it is done; each step is an event with an expectation, so that two leaders can't do it twice. The level
//! is one that every member reads, for who leads may be the only new one.
//! The Service `kubernetes` comes back when it is deleted, as in Kubernetes; the namespaces can't be.

use crate::config::Config;
use crate::core::{Core, Draft, ProposeError};
use crate::http::service_ips;
use crate::level;
use eventstore::{
    Act, Actor, Body, Cause, Change, Expectation, Expected, Intent, Key, Rejection, View, What,
};
use kinds::resources::core::service;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LOOK_EVERY: Duration = Duration::from_millis(50);
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Namespaces that every cluster has (kubernetes.io/docs/concepts/overview/working-with-objects/namespaces).
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// The API's Service, in the namespace `default`: where pods look for it.
const SERVICE: &str = "kubernetes";
/// Between two looks at whether it is still there (Kubernetes: the same).
const SERVICE_EVERY: Duration = Duration::from_secs(10);
/// The port that the Service offers, whatever the servers listen on.
const HTTPS_PORT: u16 = 443;

/// Never returns: what the cluster must have is looked after as long as the server runs.
pub async fn run(core: Core, config: Config) {
    loop {
        if core.node().status().leads()
            && let Err(error) = found(&core, &config).await
        {
            tracing::debug!(%error, "founding the cluster goes on");
        }
        let view = core.view();
        let done = NAMESPACES
            .iter()
            .all(|name| view.get(&Key::namespace_object(*name)).is_some());
        sleep(if done { SERVICE_EVERY } else { LOOK_EVERY }).await;
    }
}

async fn found(core: &Core, config: &Config) -> Result<(), ProposeError> {
    if core.view().level == 0 {
        let act = Act::Found {
            cluster: core.draw().uuid(),
            level: level::first(core).await,
        };
        propose(
            core,
            Draft {
                intent: Intent::Found,
                expectations: Vec::new(),
                act,
            },
        )
        .await?;
    }
    for name in NAMESPACES {
        let key = Key::namespace_object(name);
        if core.view().get(&key).is_none() {
            propose(core, create(&key, &namespace(name))).await?;
        }
    }
    if let Some(draft) = service_draft(&core.view(), config) {
        propose(core, draft).await?;
    }
    Ok(())
}

/// The Service `kubernetes` with its address, unless it is there, or can't be.
fn service_draft(view: &View, config: &Config) -> Option<Draft> {
    let key = Key::new(service::KIND.resource(), NAMESPACES[0], SERVICE);
    if view.get(&key).is_some() {
        return None;
    }
    let range = &config.service_cidr;
    let (address, claims) = match service_ips::allocate_first(view, &service::KIND, &key, range) {
        Ok(Some(allocated)) => allocated,
        Ok(None) => {
            tracing::warn!(range, "another Service has the address of the API's own");
            return None;
        }
        Err(error) => {
            tracing::warn!(
                error = error.message,
                "the API's own Service has no address"
            );
            return None;
        }
    };
    let (_, port) = config.advertise.rsplit_once(':')?;
    let service = service_object(address, port.parse().ok()?);
    let mut draft = create(&key, &service);
    draft.expectations.push(Expectation {
        key: Key::namespace_object(NAMESPACES[0]),
        is: Expected::Living,
    });
    if let Act::Objects(changes) = &mut draft.act {
        claims.join(&mut draft.expectations, changes);
    }
    Some(draft)
}

/// A step that another leader took before is done as well.
async fn propose(core: &Core, draft: Draft) -> Result<(), ProposeError> {
    let mut request = core.request(
        Actor::Server {
            name: core.name().into(),
        },
        Cause::default(),
    );
    match core
        .propose(&mut request, draft, Instant::now() + STEP_TIMEOUT)
        .await
    {
        Ok(_)
        | Err(ProposeError::Rejected(Rejection::Expectation { .. } | Rejection::NotNow(_))) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn create(key: &Key, object: &Value) -> Draft {
    let body = Body::cut(object).expect("the first objects have names");
    let change = Change {
        key: key.clone(),
        what: What::Put {
            body,
            delete_grace_s: None,
        },
    };
    Draft::objects(
        Intent::Create,
        vec![Expectation {
            key: key.clone(),
            is: Expected::Absent,
        }],
        vec![change],
    )
}

fn namespace(name: &str) -> Value {
    json!({
        "kind": "Namespace", "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    })
}

/// It selects no pods: the servers are none.
fn service_object(address: IpAddr, target_port: u16) -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {
            "name": SERVICE, "namespace": NAMESPACES[0],
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "ports": [{"name": "https", "protocol": "TCP", "port": HTTPS_PORT, "targetPort": target_port}],
            "clusterIP": address, "clusterIPs": [address], "type": "ClusterIP", "sessionAffinity": "None",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
        },
        "status": {"loadBalancer": {}},
    })
}

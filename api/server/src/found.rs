//! The first events of a cluster: its id and level, then the objects that a new Kubernetes cluster has.
//!
//! Whoever leads does it, until it is done; each step is an event with an expectation, so that two leaders can't do it twice.

use crate::core::{Core, Draft, ProposeError};
use eventstore::{
    Act, Actor, Body, Cause, Change, Expectation, Expected, Intent, Key, LEVEL, Rejection, What,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LOOK_EVERY: Duration = Duration::from_millis(50);
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Namespaces that every cluster has (kubernetes.io/docs/concepts/overview/working-with-objects/namespaces).
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Returns when the cluster has its first objects.
pub async fn run(core: Core) {
    loop {
        if core.node().status().leads()
            && let Err(error) = found(&core).await
        {
            tracing::debug!(%error, "founding the cluster goes on");
        }
        if NAMESPACES
            .iter()
            .all(|name| core.view().get(&Key::namespace_object(*name)).is_some())
        {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn found(core: &Core) -> Result<(), ProposeError> {
    if core.view().level == 0 {
        let act = Act::Found {
            cluster: core.draw().uuid(),
            level: LEVEL,
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
    Ok(())
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

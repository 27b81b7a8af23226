//! The log's level goes up once every member can read the next one.
//!
//! The leader asks each member, learners included, which level its program knows, and proposes the lowest of them. A member that does
//! not answer may be an old one that comes back: while one is silent, the level stays.

use crate::core::{Core, Draft};
use bytes::Bytes;
use eventstore::{Act, Actor, Cause, Intent};
use seams::{NetworkError, RefusalCode};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The peers' method that asks a server which level it knows: four bytes, little endian.
pub(crate) const METHOD_LEVEL: &str = "level";

const LOOK_EVERY: Duration = Duration::from_secs(5);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a program that is too old to be asked.
const FIRST_LEVEL: u32 = 1;

/// Never returns.
pub(crate) async fn run(core: Core) {
    loop {
        sleep(LOOK_EVERY).await;
        let level = core.view().level;
        if level == 0 || level >= core.most_level() || !core.node().status().leads() {
            continue;
        }
        if let Some(common) = common(&core).await
            && common > level
        {
            raise(&core, common).await;
        }
    }
}

pub(crate) fn answer(core: &Core) -> Bytes {
    Bytes::copy_from_slice(&core.most_level().to_le_bytes())
}

/// The highest level that every member knows; None while one does not say.
async fn common(core: &Core) -> Option<u32> {
    let status = core.node().status();
    let mut common = core.most_level();
    for member in &status.members {
        if member.peer.id == status.id {
            continue;
        }
        let asked = core
            .node()
            .call(&member.peer, METHOD_LEVEL, Bytes::new(), ASK_TIMEOUT)
            .await;
        let knows = match asked {
            Ok(bytes) => u32::from_le_bytes(bytes.as_ref().try_into().ok()?),
            Err(NetworkError::Refused {
                code: RefusalCode::UnknownMethod,
                ..
            }) => FIRST_LEVEL,
            Err(error) => {
                let member = &member.peer.name;
                tracing::debug!(%error, member, "the log's level stays, for a member is silent");
                return None;
            }
        };
        common = common.min(knows);
    }
    Some(common)
}

async fn raise(core: &Core, level: u32) {
    let actor = Actor::Server {
        name: core.name().into(),
    };
    let draft = Draft {
        // Said in words that a program of the level before can read.
        intent: Intent::Reconcile {
            what: format!("raise the log's level to {level}").into(),
        },
        expectations: Vec::new(),
        act: Act::RaiseLevel { level },
    };
    let mut request = core.request(actor, Cause::default());
    match core
        .propose(&mut request, draft, Instant::now() + PROPOSE_TIMEOUT)
        .await
    {
        Ok(_) => tracing::info!(level, "the log's level was raised"),
        Err(error) => tracing::debug!(%error, level, "the log's level was not raised"),
    }
}

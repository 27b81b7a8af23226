//! The log's level: a cluster begins at one that every member can read, and it goes up once every member can read the next one.
//!
//! The leader asks each member, learners included, which level its program knows, and proposes the lowest of them. A member that does
//! not answer may be an old one that comes back: while one is silent, the level stays. A new cluster does not wait for it: it begins at
//! the first level, which every program reads.

use crate::core::{Core, Draft};
use bytes::Bytes;
use eventstore::{Act, Actor, Cause, Intent};
use seams::{NetworkError, RefusalCode};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The peers' method that asks a server which level it knows: four bytes, little endian.
pub(crate) const METHOD_LEVEL: &str = "level";

const LOOK_EVERY: Duration = Duration::from_secs(5);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a new cluster waits for what all its members say: servers that are started together are up by then.
const FOUND_WAIT: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Every program reads it, one that is too old to be asked too.
const FIRST_LEVEL: u32 = 1;

/// Never returns.
pub(crate) async fn run(core: Core) {
    loop {
        sleep(LOOK_EVERY).await;
        let level = core.view().level;
        if level == 0 || level >= core.most_level() || !core.node().status().leads() {
            continue;
        }
        if let Some(level) = due(level, known(&core).await) {
            raise(&core, level).await;
        }
    }
}

/// The level that a new cluster, which this server leads, is founded at.
pub(crate) async fn first(core: &Core) -> u32 {
    let all_say = async {
        loop {
            if let Some(level) = common(known(core).await) {
                return level;
            }
            sleep(ASK_AGAIN).await;
        }
    };
    timeout(FOUND_WAIT, all_say).await.unwrap_or_else(|_| {
        tracing::info!(
            level = FIRST_LEVEL,
            "a member is silent: the cluster begins at the first level of the log, which is raised when it answers"
        );
        FIRST_LEVEL
    })
}

pub(crate) fn answer(core: &Core) -> Bytes {
    Bytes::copy_from_slice(&core.most_level().to_le_bytes())
}

/// The highest level that every member knows. None of a member: it does not say, and so neither can anybody.
fn common(known: impl IntoIterator<Item = Option<u32>>) -> Option<u32> {
    let known: Option<Vec<u32>> = known.into_iter().collect();
    known?.into_iter().min()
}

/// The level to which the log's is to be raised, if it is.
fn due(level: u32, known: impl IntoIterator<Item = Option<u32>>) -> Option<u32> {
    common(known).filter(|common| *common > level)
}

/// What each member knows, this one first; up to the first that does not say, for nobody can tell then.
async fn known(core: &Core) -> Vec<Option<u32>> {
    let status = core.node().status();
    let mut known = vec![Some(core.most_level())];
    for member in &status.members {
        if member.peer.id == status.id {
            continue;
        }
        let asked = core
            .node()
            .call(&member.peer, METHOD_LEVEL, Bytes::new(), ASK_TIMEOUT)
            .await;
        let says = said(&asked);
        known.push(says);
        if says.is_none() {
            let member = &member.peer.name;
            tracing::debug!(?asked, member, "a member does not say which level it knows");
            break;
        }
    }
    known
}

/// The level that an answer names; None: it tells nothing.
fn said(asked: &Result<Bytes, NetworkError>) -> Option<u32> {
    match asked {
        Ok(bytes) => Some(u32::from_le_bytes(bytes.as_ref().try_into().ok()?)),
        Err(NetworkError::Refused {
            code: RefusalCode::UnknownMethod,
            ..
        }) => Some(FIRST_LEVEL),
        Err(_) => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (u32, &'static [Option<u32>], Option<u32>);

    #[test]
    fn it_rises_to_what_all_know_and_stays_while_one_is_silent() {
        const SILENT: Option<u32> = None;
        // the log's level, what each member knows, the next level
        let rows: &[Row] = &[
            (1, &[Some(2)], Some(2)),
            (1, &[Some(2), Some(2), Some(2)], Some(2)),
            (1, &[Some(2), Some(1), Some(2)], None),
            (1, &[Some(2), Some(2), Some(1)], None),
            (1, &[Some(2), SILENT, Some(2)], None),
            (1, &[Some(2), Some(2), SILENT], None),
            (1, &[Some(4), Some(3), Some(5)], Some(3)),
            (2, &[Some(2), Some(2)], None),
            // It never falls.
            (2, &[Some(3), Some(1)], None),
            (1, &[], None),
        ];
        for (level, known, next) in rows {
            let got = due(*level, known.iter().copied());
            assert_eq!(got, *next, "{level}, {known:?}");
        }
    }

    #[test]
    fn what_an_answer_tells() {
        let refused = |code| {
            Err(NetworkError::Refused {
                peer: "server-2".into(),
                code,
                message: "no".into(),
            })
        };
        let bytes = |bytes: &'static [u8]| Ok(Bytes::from_static(bytes));
        for (asked, says) in [
            (bytes(&[2, 0, 0, 0]), Some(2)),
            (bytes(&[]), None),
            (bytes(&[2]), None),
            (bytes(&[2, 0, 0, 0, 0]), None),
            // A program of the first level is not asked such things.
            (refused(RefusalCode::UnknownMethod), Some(1)),
            (refused(RefusalCode::Unavailable), None),
            (
                Err(NetworkError::TimedOut {
                    peer: "server-2".into(),
                    after: ASK_TIMEOUT,
                }),
                None,
            ),
        ] {
            assert_eq!(said(&asked), says, "{asked:?}");
        }
    }
}

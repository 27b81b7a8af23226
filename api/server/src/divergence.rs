//! Servers compare the digests of their histories as they go, and one that differs from a majority fences itself.
//!
//! Each asks every other member for the digest at one revision, its own of a while ago, which all but those that lag have; no one is told
//! that he is wrong, for the wrong one finds out by itself, from the same answers. The chain makes one late comparison as good as
//! all before: what once differed differs for ever. A server is fenced only by a majority of all voting members that agree among
//! themselves on another digest. Where there is none, one against one, nobody can tell who is wrong: it is said, and nothing is done.

use crate::core::Core;
use bytes::Bytes;
use eventstore::{Digest, decode, encode};
use raft::how_to_rebuild;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// The peers' method that asks a server for the digest at a revision.
pub(crate) const METHOD_DIGEST: &str = "digest";

const COMPARE_EVERY: Duration = Duration::from_secs(10);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Until somebody has answered since the start: a whole cluster starts together.
const FIRST_EVERY: Duration = Duration::from_secs(1);
/// Between two tries of a server that may not lead to have another lead.
const HAND_OVER_EVERY: Duration = Duration::from_secs(1);

/// Where a history stands at a revision: the last revision of the event that holds it, and the digest there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Stands {
    last: u64,
    digest: Digest,
}

impl std::fmt::Display for Stands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut digest = self.digest.to_string();
        digest.truncate(16);
        write!(f, "{digest}… at revision {}", self.last)
    }
}

/// What the comparisons came to so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    /// Answers by other members: as here, other than here, none that could be compared.
    pub equal: u64,
    pub differing: u64,
    pub unknown: u64,
    /// What differs with nobody to tell who is wrong, as of the last round.
    pub unclear: Option<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Comparisons(Arc<Mutex<Compared>>);

impl Comparisons {
    pub fn read(&self) -> Compared {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Compared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one round shows.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody who could be compared differs.
    Sound,
    /// Some differ, and no majority agrees on what is right.
    Unclear(String),
    /// A majority agrees that this server is wrong.
    Wrong(String),
}

/// Compares until this server is fenced, and from then on keeps it from leading. Never returns.
pub(crate) async fn run(core: Core) {
    let mut pause = FIRST_EVERY;
    while core.fenced().is_none() {
        // What most will have after the pause.
        let revision = core.view().revision;
        sleep(pause).await;
        if round(&core, revision).await {
            pause = COMPARE_EVERY;
        }
    }
    core.node().stand_aside();
    loop {
        if core.node().status().leads()
            && let Err(error) = core.node().transfer_leadership(None).await
        {
            tracing::warn!(%error, "this server must not lead, and can't hand leadership over");
        }
        sleep(HAND_OVER_EVERY).await;
    }
}

/// The answer to a peer: where the history here stands at a revision.
pub(crate) fn answer(core: &Core, body: &[u8]) -> Result<Bytes, eventstore::CodecError> {
    let revision: u64 = decode(body)?;
    Ok(encode(&stands(core, revision)).into())
}

/// None: it is not that far, or has pruned it.
fn stands(core: &Core, revision: u64) -> Option<Stands> {
    let recorded = core.store().recorded_at(revision).ok().flatten()?;
    Some(Stands {
        last: recorded.revision(),
        digest: recorded.digest,
    })
}

/// False: there are others, and none could be compared with.
async fn round(core: &Core, revision: u64) -> bool {
    let Some(own) = stands(core, revision) else {
        return false;
    };
    let status = core.node().status();
    let voters = status.members.iter().filter(|member| member.voter).count();
    let others = status
        .members
        .iter()
        .filter(|member| member.voter && member.peer.id != status.id);
    let asked = others.map(|member| async {
        let question = encode(&revision).into();
        let asked = core
            .node()
            .call(&member.peer, METHOD_DIGEST, question, ASK_TIMEOUT)
            .await;
        let answer: Option<Stands> = asked
            .ok()
            .and_then(|bytes| decode::<Option<Stands>>(&bytes).ok())
            .flatten();
        (member.peer.name.clone(), answer)
    });
    let answers = futures::future::join_all(asked).await;
    let verdict = judge(core.name(), own, &answers, voters);
    let comparisons = core.comparisons();
    let mut compared = comparisons.lock();
    for (_, answer) in &answers {
        match answer {
            Some(answer) if *answer == own => compared.equal += 1,
            Some(_) => compared.differing += 1,
            None => compared.unknown += 1,
        }
    }
    compared.unclear = match &verdict {
        Verdict::Unclear(why) => Some(why.clone()),
        Verdict::Sound | Verdict::Wrong(_) => None,
    };
    drop(compared);
    match verdict {
        Verdict::Sound => {}
        Verdict::Unclear(why) => tracing::error!(why, "the servers' histories differ"),
        Verdict::Wrong(why) => core.raise_fence(why),
    }
    status.members.len() == 1 || answers.iter().any(|(_, answer)| answer.is_some())
}

/// `voters`: how many vote in all, this server too if it does.
fn judge(name: &str, own: Stands, answers: &[(String, Option<Stands>)], voters: usize) -> Verdict {
    let mut differing: BTreeMap<Stands, Vec<&str>> = BTreeMap::new();
    for (other, answer) in answers {
        if let Some(answer) = answer
            && *answer != own
        {
            differing.entry(*answer).or_default().push(other);
        }
    }
    let said: Vec<_> = differing
        .iter()
        .map(|(stands, who)| format!("{stands} on {}", who.join(" and ")))
        .collect();
    let said = said.join(", ");
    if differing.is_empty() {
        Verdict::Sound
    } else if differing.values().any(|who| who.len() * 2 > voters) {
        Verdict::Wrong(format!(
            "{name} has diverged from a majority of the servers: its history's digest is {own}, and {said}. It serves no reads and no \
             writes. To rebuild it, {}",
            how_to_rebuild(name)
        ))
    } else {
        Verdict::Unclear(format!(
            "the servers' histories differ, and no majority says which is right: the digest is {own} on {name}, {said}. Find out with 'reckon \
             verify' on each, then remove the one that is wrong and let it join again with an empty directory"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(byte: u8) -> Stands {
        Stands {
            last: 7,
            digest: Digest([byte; 32]),
        }
    }

    #[test]
    fn only_a_majority_that_agrees_fences() {
        // What the others answered, out of so many voters; this server has 1.
        let check = |answers: &[Option<u8>], voters: usize, says: &str| {
            let answers: Vec<_> = answers
                .iter()
                .zip(2..)
                .map(|(answer, number)| (format!("server-{number}"), answer.map(at)))
                .collect();
            let word = match judge("server-1", at(1), &answers, voters) {
                Verdict::Sound => "sound",
                Verdict::Unclear(_) => "unclear",
                Verdict::Wrong(_) => "wrong",
            };
            assert_eq!(word, says, "{answers:?} of {voters}");
        };
        check(&[], 1, "sound");
        check(&[Some(1), Some(1)], 3, "sound");
        check(&[None, None], 3, "sound");
        check(&[Some(1), None], 3, "sound");
        check(&[Some(2), Some(2)], 3, "wrong");
        // The other two are right or wrong together with nobody else.
        check(&[Some(2), Some(1)], 3, "unclear");
        check(&[Some(2), None], 3, "unclear");
        check(&[Some(2), Some(3)], 3, "unclear");
        check(&[Some(2)], 2, "unclear");
        check(&[Some(2), Some(2), None], 4, "unclear");
        check(&[Some(2), Some(2), Some(2)], 4, "wrong");
        check(&[Some(2), Some(2), Some(2), None], 5, "wrong");
        // One that does not vote yet is told by those who do.
        check(&[Some(2)], 1, "wrong");
    }

    #[test]
    fn it_says_what_differs_and_what_to_do() {
        let answers = [
            ("server-2".to_owned(), Some(at(2))),
            ("server-3".to_owned(), Some(at(2))),
        ];
        let Verdict::Wrong(why) = judge("server-1", at(1), &answers, 3) else {
            panic!("not fenced")
        };
        for part in [
            "server-1 has diverged",
            "its history's digest is 0101010101010101… at revision 7",
            "and 0202020202020202… at revision 7 on server-2 and server-3",
            "reckon member remove server-1",
            "empty directory",
        ] {
            assert!(why.contains(part), "{part:?} is not in {why:?}");
        }
    }
}

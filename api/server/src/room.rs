//! Room on the disks: users' writes stop while there is still enough for everything else.
//!
//! A log that can't be written any more stops its server, and a majority of such servers stops the cluster, with nobody able to delete
//! anything. So each server keeps a reserve (`--disk-reserve`): while the leader is below its own, or so many members are that those
//! with room are no majority, the leader takes no more writes of users, and says who has how much. Which server took the request does
//! not count, for it stores no more than any other. Deletions are refused with the rest: they are events too, and free nothing, since
//! history keeps what was deleted. What goes on: consensus, reads, the reconcilers, agents' sessions and reports, what servers propose
//! themselves (the horizon of history moves, which is what makes room), Leases, what kubelets say of their nodes, and the users' acts
//! that mend it: to let go of held history, to change the members.
//!
//! The rooms are measured beside, every now and then: a write looks at what was found last and waits for nothing.

use crate::config::DiskReserve;
use crate::core::Core;
use crate::members;
use bytes::Bytes;
use eventstore::{Act, Actor, Proposal, decode, encode};
use seams::{Directory, Room};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// The peers' method that asks a server how much room it has.
pub(crate) const METHOD_ROOM: &str = "room";

/// A disk that takes 500 MiB a second gains 1 GiB on its reserve between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// What a kubelet and the servers of a cluster are, to the API.
const NOT_USERS: [&str; 2] = ["system:nodes", "system:reckon:servers"];
/// A lease that can't be renewed costs its holder everything.
const LEASES: &str = "coordination.k8s.io/leases";

/// How much a server has, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HasRoom {
    pub name: String,
    pub total: u64,
    pub free: u64,
    pub reserve: u64,
}

impl HasRoom {
    fn new(name: &str, room: Room, reserve: DiskReserve) -> Self {
        Self {
            name: name.to_owned(),
            total: room.total,
            free: room.free,
            reserve: reserve.of(room.total),
        }
    }

    pub fn is_short(&self) -> bool {
        self.free < self.reserve
    }
}

impl std::fmt::Display for HasRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name,
            total,
            free,
            reserve,
        } = self;
        write!(
            f,
            "{name} has {} free of {}, below its reserve of {}",
            Bytesize(*free),
            Bytesize(*total),
            Bytesize(*reserve)
        )
    }
}

/// A number of bytes for people.
struct Bytesize(u64);

impl std::fmt::Display for Bytesize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.iter().find(|(_, shift)| self.0 >> shift >= 1) {
            Some((unit, shift)) => {
                write!(f, "{:.1} {unit}", self.0 as f64 / (1_u64 << shift) as f64)
            }
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// What was found last; clones are the same.
#[derive(Clone)]
pub(crate) struct Rooms(Arc<Inner>);

struct Inner {
    name: String,
    reserve: DiskReserve,
    directory: Arc<dyn Directory>,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    own: Option<HasRoom>,
    /// Why no user may write, while this server leads.
    refusal: Option<Arc<str>>,
}

impl Rooms {
    pub fn new(name: &str, reserve: DiskReserve, directory: Arc<dyn Directory>) -> Self {
        let rooms = Self(Arc::new(Inner {
            name: name.to_owned(),
            reserve,
            directory,
            found: Mutex::default(),
        }));
        rooms.measure();
        rooms
    }

    /// This server's own, as measured last.
    pub fn own(&self) -> Option<HasRoom> {
        self.found().own.clone()
    }

    /// Why this leader does not take a proposal.
    pub fn refuses(&self, proposal: &Proposal) -> Option<Arc<str>> {
        let refusal = self.found().refusal.clone()?;
        takes_from_reserve(proposal).then_some(refusal)
    }

    /// Looks at the own disk. One that can't be measured is taken to have room: its writes tell soon enough.
    fn measure(&self) -> Option<HasRoom> {
        let Inner {
            name,
            reserve,
            directory,
            ..
        } = &*self.0;
        let own = directory.room();
        let own =
            own.inspect_err(|error| tracing::warn!(%error, "the room on the disk is not known"));
        let own = own.ok().map(|room| HasRoom::new(name, room, *reserve));
        self.found().own.clone_from(&own);
        own
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Measures, and on the leader asks the others. Never returns.
pub(crate) async fn run(core: Core) {
    let rooms = core.rooms().clone();
    let mut before = None;
    loop {
        let own = rooms.measure();
        let refusal = match core.node().status().leads() {
            true => refusal(own.as_ref(), &voters(&core).await),
            false => None,
        };
        if refusal != before {
            match &refusal {
                Some(why) => tracing::warn!(why = &**why, "users' writes are refused"),
                None => tracing::info!("users' writes are not refused for want of room any more"),
            }
            before.clone_from(&refusal);
        }
        rooms.found().refusal = refusal;
        sleep(LOOK_EVERY).await;
    }
}

pub(crate) fn answer(core: &Core) -> Bytes {
    encode(&core.rooms().own()).into()
}

/// What each other voting member says it has; None of one that does not say.
async fn voters(core: &Core) -> Vec<Option<HasRoom>> {
    let status = core.node().status();
    let others = status
        .members
        .iter()
        .filter(|member| member.voter && member.peer.id != status.id);
    let asked = others.map(|member| async {
        let asked = core
            .node()
            .call(&member.peer, METHOD_ROOM, Bytes::new(), ASK_TIMEOUT)
            .await;
        asked
            .ok()
            .and_then(|bytes| decode::<Option<HasRoom>>(&bytes).ok())
            .flatten()
    });
    futures::future::join_all(asked).await
}

/// Why the leader takes no write of a user. `own`: the leader's, which votes; `others`: the other voters'. One that does not say counts
/// as having room: whether it answers is Raft's affair.
fn refusal(own: Option<&HasRoom>, others: &[Option<HasRoom>]) -> Option<Arc<str>> {
    let leader = own.filter(|own| own.is_short());
    let short: Vec<_> = leader
        .into_iter()
        .chain(others.iter().flatten().filter(|other| other.is_short()))
        .collect();
    let voters = others.len() + 1;
    let why = match (leader, (voters - short.len()) * 2 > voters) {
        (None, true) => return None,
        (Some(leader), true) => format!("{leader}, and it leads"),
        (_, false) => {
            let short: Vec<_> = short.iter().map(ToString::to_string).collect();
            let which = format!("{} of {voters} servers", voters - short.len());
            format!("only {which} have room: {}", short.join("; "))
        }
    };
    Some(
        format!(
            "there is not enough room on the disks for users' writes: {why}. Reads go on. Make room on that disk, or keep less history \
             (--history-retention); a deletion makes no room, for history keeps what is deleted"
        )
        .into(),
    )
}

/// Whether a proposal is what the reserve is kept from.
fn takes_from_reserve(proposal: &Proposal) -> bool {
    let Actor::User { groups, .. } = &proposal.actor else {
        return false;
    };
    if groups.iter().any(|group| NOT_USERS.contains(&&**group)) {
        return false;
    }
    match &proposal.act {
        Act::Objects(changes) => changes
            .iter()
            .any(|change| &*change.key.resource != LEASES && !members::is_record(&change.key)),
        Act::Release { .. } => false,
        Act::Found { .. }
        | Act::Round(_)
        | Act::OpenSession { .. }
        | Act::LoseSession { .. }
        | Act::RaiseLevel { .. }
        | Act::Prune(_)
        | Act::Hold { .. }
        | Act::Restored { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(name: &str, free: u64) -> HasRoom {
        let room = Room {
            total: 1 << 30,
            free: free << 20,
        };
        HasRoom::new(name, room, DiskReserve::Percent(5))
    }

    #[test]
    fn the_leader_or_a_majority_has_to_have_room() {
        // MiB free, of 1 GiB each with a reserve of 51.2 MiB; the leader's first. `says`: what is said, "" where writes are taken.
        let check = |leader: u64, others: &[Option<u64>], says: &str| {
            let own = has("server-1", leader);
            let others: Vec<_> = others
                .iter()
                .zip(2..)
                .map(|(free, number)| Some(has(&format!("server-{number}"), (*free)?)))
                .collect();
            let refusal = refusal(Some(&own), &others);
            match (&refusal, says) {
                (None, "") => {}
                (Some(why), says) if !says.is_empty() => assert!(why.contains(says), "{why}"),
                _ => panic!("{leader} {others:?}: {refusal:?}"),
            }
        };
        let leads =
            "server-1 has 50.0 MiB free of 1.0 GiB, below its reserve of 51.2 MiB, and it leads";
        check(100, &[], "");
        check(50, &[], "only 0 of 1 servers have room");
        check(52, &[Some(52), Some(52)], "");
        check(50, &[Some(100), Some(100)], leads);
        check(100, &[Some(50), Some(100)], "");
        check(100, &[None, None], "");
        check(
            100,
            &[Some(50), Some(0)],
            "only 1 of 3 servers have room: server-2 has 50.0 MiB free of 1.0 GiB, below its reserve of 51.2 MiB; server-3 has 0 bytes free",
        );
        check(
            50,
            &[Some(50), Some(100)],
            "only 1 of 3 servers have room: server-1 has",
        );
        check(
            50,
            &[Some(50), Some(9), Some(100), Some(100), Some(100)],
            "only 3 of 6",
        );
        check(100, &[Some(50), Some(9), Some(100), Some(100)], "");
    }

    #[test]
    fn what_the_reserve_is_for_goes_on() {
        use eventstore::{Cause, Change, Intent, Key, ProposalId, Salt, What};
        let user = |groups: &[&str]| Actor::User {
            user: "anna".into(),
            groups: groups.iter().map(|group| (*group).into()).collect(),
            impersonator: None,
            client: "".into(),
            address: "".into(),
        };
        let objects = |resource: &str| {
            Act::Objects(vec![Change {
                key: Key::new(resource, "default", "it"),
                what: What::Remove,
            }])
        };
        let check = |actor: Actor, act: Act, refused: bool| {
            let proposal = Proposal {
                id: ProposalId {
                    uuid: uuid::Uuid::nil(),
                    attempt: 0,
                },
                actor,
                cause: Cause::default(),
                intent: Intent::Update,
                first_sent: 0,
                salt: Salt([0; 16]),
                expectations: Vec::new(),
                act,
            };
            assert_eq!(takes_from_reserve(&proposal), refused, "{proposal:?}");
        };
        let server = Actor::Server {
            name: "server-1".into(),
        };
        check(user(&["system:masters"]), objects("pods"), true);
        check(user(&[]), objects(LEASES), false);
        check(user(&["system:nodes"]), objects("nodes"), false);
        check(user(&["system:masters"]), objects("~members"), false);
        check(server, objects("pods"), false);
        check(user(&[]), Act::Release { name: "a".into() }, false);
        check(
            user(&[]),
            Act::Hold {
                name: "a".into(),
                revision: 1,
            },
            true,
        );
    }
}

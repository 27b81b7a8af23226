//! A new cluster as of a moment of an archived one: `reckon restore --from URL --at MOMENT --data-dir DIR`.
//!
//! All of the unbroken stretch that has the moment is loaded, the whole archive where it has but one, so that the new cluster has the old
//! one's history. Then come events like any other: one that says
//! whose history this was and passes over the revisions that the old cluster may have given out and the archive missed, and those that
//! make desired state what it was. Last a small file is written that lets a server begin as the only member; without it, what is there
//! is of no use, and is said to be.

use super::{Archive, ArchiveError, Chain, Chains, Loaded, Moment, load};
use crate::core;
use crate::timetravel::reborn::{self, Then};
use eventstore::{
    Act, Actor, Cause, Change, Entry, Intent, Position, Proposal, ProposalId, Salt, Time, encode,
};
use eventstore_disk::{ReadError, Store, StoreConfig};
use kinds::kind::Context;
use raft::WhoseDisk;
use seams::{Clock, Directory, Entropy, FileDirectory, Peer, SystemClock, SystemEntropy};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Says that the directory holds a restored state, and that no server has begun on it yet.
const MARKER: &str = "restored";
/// Changes of one event, and their bytes: far below what a proposal may have.
const CHANGES_MAX: usize = 900;
const BYTES_MAX: usize = Proposal::MOST_BYTES / 2;
/// Plans: each brings back what the one before was waited for by, and owners own owners a few deep.
const PLANS_MAX: usize = 20;
const PAGE_OBJECTS: usize = 10_000;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub cluster: Option<Uuid>,
    /// A revision or a time; None: the end.
    pub at: Option<String>,
    pub gap: u64,
    /// Who asks.
    pub user: String,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    pub from: String,
    /// The old cluster, and where what was loaded of it ends.
    pub before: Uuid,
    pub before_revision: u64,
    pub before_digest: String,
    /// How far its archive reaches: further, if that moment is of an earlier stretch.
    pub archive_revision: u64,
    pub cluster: Uuid,
    /// Whose desired state was restored.
    pub at: u64,
    pub at_time: String,
    /// Revisions that were passed over, for the old cluster may have given out more than its backup has.
    pub gap: u64,
    /// Where the new cluster begins.
    pub revision: u64,
    pub digest: String,
    pub events_loaded: u64,
    pub objects: usize,
}

/// Where it is made, and what it is stamped and named by.
pub struct Outside<'a> {
    pub directory: Arc<dyn Directory>,
    pub clock: &'a dyn Clock,
    pub entropy: &'a dyn Entropy,
}

/// Makes it. `told` is called with the revision that loading has reached, and the last.
pub async fn restore(
    archive: &Archive,
    data_dir: &Path,
    asked: &Asked,
    told: impl Fn(u64, u64),
) -> Result<Restored, ArchiveError> {
    let chains = Chains::of(archive, which(archive, asked.cluster).await?).await?;
    // Before anything is made.
    chains.holding(Moment::parse(asked.at.as_deref())?)?;
    let directory: Arc<dyn Directory> =
        Arc::new(FileDirectory::open(data_dir).map_err(|error| refused(error.to_string()))?);
    must_be_unused(&*directory, data_dir)?;
    let outside = Outside {
        directory,
        clock: &SystemClock,
        entropy: &SystemEntropy,
    };
    of_chains(archive, &chains, &outside, asked, told).await
}

/// The same in an empty directory that need not be of the file system.
pub async fn restore_in(
    outside: &Outside<'_>,
    archive: &Archive,
    asked: &Asked,
) -> Result<Restored, ArchiveError> {
    let chains = Chains::of(archive, which(archive, asked.cluster).await?).await?;
    of_chains(archive, &chains, outside, asked, |_, _| {}).await
}

async fn of_chains(
    archive: &Archive,
    chains: &Chains,
    outside: &Outside<'_>,
    asked: &Asked,
    told: impl Fn(u64, u64),
) -> Result<Restored, ArchiveError> {
    let moment = Moment::parse(asked.at.as_deref())?;
    let chain = chains.holding(moment)?;
    let (directory, last) = (&outside.directory, chain.last());
    let database =
        core::current_database(&**directory).map_err(|error| refused(error.to_string()))?;
    let loaded = load(archive, chain, &**directory, &database, |revision| {
        told(revision, last);
    })
    .await?;
    let store = Store::open(directory.clone(), &database, StoreConfig::default())
        .map_err(|error| refused(error.to_string()))?;
    let at = revision_of(moment, chain, &store)?;
    let then = match base_at(chain, &loaded, at) {
        Some(then) => then,
        None => as_of(&store, at)?,
    };
    let before = store.view();
    // Whatever stretch is loaded, the old cluster has given out what any of them has.
    let gap = asked
        .gap
        .saturating_add(chains.highest.saturating_sub(before.revision));
    let mut writing = Writing {
        store: &store,
        outside,
        user: &asked.user,
        at,
        id: drawn(outside.entropy),
        before: 0,
        not_before: chains.latest,
    };
    let cluster = drawn(outside.entropy).uuid;
    if before.level < 2 {
        // Said in words that the level before has.
        let intent = Intent::Reconcile {
            what: "raise the log's level to 2".into(),
        };
        writing.take(intent, Act::RaiseLevel { level: 2 })?;
        // It is no part of what is restored.
        writing.before = 0;
    }
    let passed_over = writing.take(Intent::Restore { at }, Act::Restored { cluster, gap, at })?;
    make(&mut writing, &then)?;
    store.flush().map_err(|error| refused(error.to_string()))?;
    let now = store.view();
    let time = match store.recorded_at(at) {
        Ok(Some(event)) => Some(event.envelope.time),
        // Of the base's own event nothing can be read.
        Ok(None) | Err(_) => chain.begins(),
    };
    let restored = Restored {
        from: archive.url().to_owned(),
        before: before.cluster,
        before_revision: before.revision,
        before_digest: before.digest.to_string(),
        archive_revision: chains.highest,
        cluster,
        at,
        gap: passed_over.last + 1 - passed_over.first,
        at_time: time.map_or_else(String::new, Time::milli),
        revision: now.revision,
        digest: now.digest.to_string(),
        events_loaded: loaded.events,
        objects: now.objects().filter(|object| !object.key.hidden()).count(),
    };
    let marker = serde_json::to_vec_pretty(&restored).unwrap_or_default();
    directory
        .write_file(MARKER, &marker)
        .map_err(|error| refused(error.to_string()))?;
    Ok(restored)
}

/// The cluster that is meant, or the only one there is.
pub async fn which(archive: &Archive, cluster: Option<Uuid>) -> Result<Uuid, ArchiveError> {
    let clusters = archive.clusters().await?;
    match (cluster, &clusters[..]) {
        (Some(cluster), _) if clusters.contains(&cluster) => Ok(cluster),
        (Some(cluster), _) => Err(ArchiveError::Asked(format!(
            "{} has nothing of cluster {cluster}",
            archive.url()
        ))),
        (None, []) => Err(ArchiveError::Asked(format!(
            "{} has no backup: make one with 'reckon backup create --to {}'",
            archive.url(),
            archive.url()
        ))),
        (None, [one]) => Ok(*one),
        (None, many) => {
            let many: Vec<String> = many.iter().map(Uuid::to_string).collect();
            Err(ArchiveError::Asked(format!(
                "{} has several clusters: name one with --cluster: {}",
                archive.url(),
                many.join(", ")
            )))
        }
    }
}

fn refused(why: String) -> ArchiveError {
    ArchiveError::Asked(why)
}

fn must_be_unused(directory: &dyn Directory, path: &Path) -> Result<(), ArchiveError> {
    let used = WhoseDisk::read(directory)
        .map_err(|error| refused(error.to_string()))?
        .is_some();
    let database = core::current_database(directory).map_err(|error| refused(error.to_string()))?;
    let there = directory
        .exists(&database)
        .map_err(|error| refused(error.to_string()))?;
    if used || there {
        return Err(refused(format!(
            "{} is in use by a server, or has an earlier restore: give an empty directory, or remove what is in it",
            path.display()
        )));
    }
    Ok(())
}

/// The end of the event that a moment of the chain names.
fn revision_of(moment: Moment, chain: &Chain, store: &Store) -> Result<u64, ArchiveError> {
    let base = chain.base.as_ref();
    let base = base.map(|base| base.head.beginning.revision);
    match (moment, base) {
        (Moment::End, _) => Ok(store.view().revision),
        (Moment::Revision(revision), Some(base)) if revision <= base => Ok(base),
        (Moment::Revision(revision), _) => store
            .not_lost(revision)
            .and_then(|()| store.event_end(revision))
            .map_err(|error| refused(error.to_string())),
        (Moment::Time(time), base) => match (store.revision_at(time), base) {
            (Ok(Some(revision)), _) => Ok(revision),
            (Ok(None), _) => Err(refused(format!(
                "the archive has nothing from before {}",
                time.milli()
            ))),
            // Before all that follows the base.
            (Err(ReadError::Compacted { .. }), Some(base)) => Ok(base),
            (Err(error), _) => Err(refused(error.to_string())),
        },
    }
}

/// Every object as the chain's base has it, which no read of the past can tell any more. None: that is not the moment.
fn base_at(chain: &Chain, loaded: &Loaded, at: u64) -> Option<Then> {
    let begins = loaded.begins.as_ref().filter(|view| view.revision == at)?;
    let without = chain.without();
    let objects = begins.objects();
    let objects = objects.filter(|object| !without.contains(&object.key.resource));
    Some(
        objects
            .map(|object| (object.key.clone(), object.clone()))
            .collect(),
    )
}

/// Every object as it was; of resources whose past is not all there, none: they are observed.
fn as_of(store: &Store, at: u64) -> Result<Then, ArchiveError> {
    let view = store.view();
    let mut then = Then::new();
    for resource in view.resources() {
        if view.retention.horizon_of(resource) > at {
            continue;
        }
        let mut after = None;
        loop {
            let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            let range = (start, std::ops::Bound::Unbounded);
            let page = store
                .list_at(resource, None, at, range, PAGE_OBJECTS)
                .map_err(|error| refused(error.to_string()))?;
            after = page
                .objects
                .last()
                .map(|last| (last.key.namespace.clone(), last.key.name.clone()));
            let objects = page.objects.into_iter();
            then.extend(objects.map(|object| (object.key.clone(), object)));
            if !page.more {
                break;
            }
        }
    }
    Ok(then)
}

/// Makes desired state what it was, in as many events as it takes.
fn make(writing: &mut Writing, then: &Then) -> Result<(), ArchiveError> {
    let context = Context {
        now: writing.store.view().clock.to_string(),
        user: writing.user.to_owned(),
        suffix: String::new(),
    };
    for _ in 0..PLANS_MAX {
        let steps = reborn::plan(then, &writing.store.view(), &context)
            .map_err(|error| refused(error.message.clone()))?;
        if steps.is_empty() {
            return Ok(());
        }
        let (mut changes, mut bytes) = (Vec::new(), 0);
        for step in steps {
            let len = encode(&step).len();
            if !changes.is_empty() && (bytes + len > BYTES_MAX || changes.len() >= CHANGES_MAX) {
                writing.objects(std::mem::take(&mut changes))?;
                bytes = 0;
            }
            bytes += len;
            changes.extend(step);
        }
        writing.objects(changes)?;
    }
    Err(refused(format!(
        "what is restored does not come to rest in {PLANS_MAX} plans"
    )))
}

/// A new id, and its first attempt.
fn drawn(entropy: &dyn Entropy) -> ProposalId {
    ProposalId {
        uuid: uuid::Builder::from_random_bytes(random(entropy)).into_uuid(),
        attempt: 0,
    }
}

fn random(entropy: &dyn Entropy) -> [u8; 16] {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    bytes
}

/// The revisions of an event.
struct Taken {
    first: u64,
    last: u64,
}

/// Takes proposals where there is no log: the store is nobody's yet, and is written behind what the old cluster's log had.
struct Writing<'a> {
    store: &'a Store,
    outside: &'a Outside<'a>,
    user: &'a str,
    at: u64,
    /// Of all its events; each is an attempt of its own, and names the one before as its cause.
    id: ProposalId,
    /// The event before; 0: there is none.
    before: u64,
    /// Times only grow.
    not_before: Time,
}

impl Writing<'_> {
    fn objects(&mut self, changes: Vec<Change>) -> Result<(), ArchiveError> {
        let intent = Intent::Restore { at: self.at };
        self.take(intent, Act::Objects(changes)).map(drop)
    }

    fn take(&mut self, intent: Intent, act: Act) -> Result<Taken, ArchiveError> {
        let view = self.store.view();
        let salt = Salt(random(self.outside.entropy));
        let proposal = Proposal {
            id: self.id,
            actor: Actor::User {
                user: self.user.into(),
                groups: Vec::new(),
                impersonator: None,
                client: concat!("reckon/", env!("CARGO_PKG_VERSION")).into(),
                address: "".into(),
            },
            cause: Cause {
                revision: self.before,
                round: 0,
            },
            intent,
            first_sent: view.position.index,
            salt,
            expectations: Vec::new(),
            act,
        };
        let position = Position {
            term: view.position.term,
            index: view.position.index + 1,
        };
        let now = Time::from_ms(self.outside.clock.wall_ms() as i64);
        let now = now.max(view.clock).max(self.not_before);
        let entry = Entry {
            clock: now,
            proposals: vec![proposal],
        };
        let applied = self
            .store
            .apply(vec![(position, Some(entry))], &[])
            .map_err(|error| refused(error.to_string()))?;
        match applied.first().and_then(|applied| applied.outcomes.first()) {
            Some((_, eventstore::Outcome::Accepted { first, last })) => {
                self.id.attempt += 1;
                self.before = *last;
                Ok(Taken {
                    first: *first,
                    last: *last,
                })
            }
            other => Err(refused(format!("the restore was not taken: {other:?}"))),
        }
    }
}

/// Why a server can't begin on what is there.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    #[error(
        "a restored cluster begins with one server, which others join: give --initial-cluster with this server alone"
    )]
    NotAlone,
    #[error(
        "this directory has a state and nothing that says whose: a restore that broke off is removed and made again"
    )]
    BrokeOff,
    #[error("the data directory can't be used: {0}")]
    Disk(#[from] seams::DiskError),
    #[error("the data directory can't be used: {0}")]
    Log(#[from] std::io::Error),
    #[error("the state: {0}")]
    Store(#[from] eventstore_disk::StoreError),
}

impl BeginError {
    /// What is on the disk is not what was written there.
    pub(crate) fn is_corrupt(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_corrupt(),
            Self::Log(error) => seams::DiskError::makes_corrupt(error),
            Self::Store(error) => error.is_corrupt(),
            Self::NotAlone | Self::BrokeOff => false,
        }
    }
}

/// Makes a server of a restored directory when it is started for the first time: the only member, under the name and address that it is
/// started with. Does nothing on any other directory.
pub(crate) fn begin(
    directory: &Arc<dyn Directory>,
    cluster: &str,
    members: &[Peer],
    entropy: &dyn Entropy,
) -> Result<(), BeginError> {
    let restored = directory
        .read_file(MARKER)?
        .is_some_and(|content| !content.is_empty());
    let database = core::current_database(&**directory)?;
    if !restored {
        let used = WhoseDisk::read(&**directory)?.is_some();
        // A server that ended in its very first start has left an empty one.
        if !used && directory.exists(&database)? {
            let store = Store::open(directory.clone(), &database, StoreConfig::default())?;
            if store.view().revision > 0 {
                return Err(BeginError::BrokeOff);
            }
        }
        return Ok(());
    }
    let [me] = members else {
        return Err(BeginError::NotAlone);
    };
    let position = {
        let store = Store::open(directory.clone(), &database, StoreConfig::default())?;
        store.view().position
    };
    let position = raft::Position {
        term: position.term,
        index: position.index,
    };
    raft::begin_alone(&**directory, cluster, me, position, entropy)?;
    // From here on it is a server's directory like any other.
    directory.write_file(MARKER, b"")?;
    Ok(())
}

//! A server's log, read while the server does not run; and the one way out when a majority is lost for good.
//!
//! A recovery appends one entry behind all that the log has: from here on this server alone is the cluster. What it starts as then
//! applies everything before that entry, also what no majority is known to have had: it may have been acknowledged, and can't be
//! told from what was not. The cluster gets another name, under which none of the other old servers is let in, whatever
//! they still hold.
//!
//! It must never change anything but by [`Offline::recover`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use seams::{Batch, Directory, Disk, DiskOptions, Entropy, Synced};

use crate::codec::{self, FlatVote, decode_membership};
use crate::identity::{Identity, RECOVERED, base, refused};
use crate::log_store::stored::{
    AFTER_ENTRIES, PURGED_KEY, VOTE_KEY, entry_key, entry_value, gone_key,
};
use crate::log_store::{self, stored};
use crate::machine::{Applied, Committed, committed};
use crate::node::LOG;
use crate::types::{
    Address, Entry, EntryPayload, LogId, Member, Membership, NodeId, Position, Vote,
};

/// Entries read at once.
const PIECE: u64 = 1_000;
const PIECE_BYTES: usize = 16 << 20;

/// Whose a directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhoseDisk {
    pub id: NodeId,
    /// The cluster's name, as [`crate::Node::cluster`] says it.
    pub cluster: String,
}

impl WhoseDisk {
    /// None for a directory that no server has used.
    pub fn read(directory: &dyn Directory) -> io::Result<Option<Self>> {
        let identity = Identity::read(directory)?;
        Ok(identity.map(|identity| Self {
            id: identity.id,
            cluster: identity.cluster,
        }))
    }
}

/// The log of a server that does not run.
pub struct Offline {
    directory: Arc<dyn Directory>,
    disk: Arc<dyn Disk>,
    identity: Identity,
    vote: Option<Vote>,
    purged: Option<Position>,
    committed: Option<Position>,
    last: Option<Position>,
}

impl Offline {
    /// Reads and verifies a server's log. An error where there is none, or where it is damaged.
    pub fn open(directory: Arc<dyn Directory>) -> io::Result<Self> {
        let Some(identity) = Identity::read(&*directory)? else {
            return Err(refused("no server has been here: there is no file 'node'"));
        };
        if !directory.exists(LOG).map_err(io::Error::other)? {
            return Err(refused("the server's log is gone"));
        }
        let disk = directory
            .open(LOG, &DiskOptions::with_wal())
            .map_err(io::Error::other)?;
        let log = log_store::load(&*disk)?;
        Ok(Self {
            directory,
            identity,
            vote: log.vote,
            purged: log.purged.map(Position::from),
            committed: log.committed.map(Position::from),
            last: log.last.map(Position::from),
            disk,
        })
    }

    pub fn whose(&self) -> WhoseDisk {
        WhoseDisk {
            id: self.identity.id,
            cluster: self.identity.cluster.clone(),
        }
    }

    /// The last term that this server has voted in or heard of.
    pub fn term(&self) -> u64 {
        self.vote.map_or(0, |vote| vote.leader_id().term)
    }

    /// The last entry of the log, committed or not.
    pub fn last(&self) -> Option<Position> {
        self.last
    }

    /// The last entry that this server is known to have heard is committed. There may be more: the mark is not synced.
    pub fn committed(&self) -> Option<Position> {
        self.committed
    }

    /// Hands over the entries behind `after`, in order and in pieces.
    pub fn entries<E: From<io::Error>>(
        &self,
        after: Option<Position>,
        mut each: impl FnMut(Committed) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.last.map_or(0, |last| last.index + 1);
        let mut from = after.map_or(0, |after| after.index + 1);
        if self.purged.is_some_and(|purged| from <= purged.index) {
            return Err(refused(
                "the log begins behind where the state stands: the state is not this log's",
            )
            .into());
        }
        while from < end {
            let to = (from + PIECE).min(end);
            let entries = stored::read_disk(&*self.disk, from, to, PIECE_BYTES)?;
            for entry in &entries {
                each(committed(entry))?;
            }
            from = match entries.last() {
                Some(last) => last.log_id.index + 1,
                None => end,
            };
        }
        Ok(())
    }

    /// The members as of the last entry, by what the machine has applied and the log behind it.
    pub fn members(&self, applied: &Applied) -> io::Result<Vec<Member>> {
        let mut stored = decode_membership(&applied.membership)?;
        self.entries(applied.position, |committed| {
            if let Some(membership) = committed.membership {
                stored = decode_membership(&membership)?;
            }
            io::Result::Ok(())
        })?;
        let voters: BTreeSet<NodeId> = stored.voter_ids().collect();
        let members = stored.nodes().map(|(id, node)| Member {
            peer: node.peer(*id),
            voter: voters.contains(id),
        });
        Ok(members.collect())
    }

    /// Makes this server the only member, of a cluster of a new name; synced when it returns. What it is called and where it is
    /// found stay. Done again after it broke off it is merely done once more.
    pub fn recover(&self, applied: &Applied, entropy: &dyn Entropy) -> io::Result<WhoseDisk> {
        let id = self.identity.id;
        let members = self.members(applied)?;
        let Some(me) = members.iter().find(|member| member.peer.id == id) else {
            return Err(refused(
                "this server was no member any more, or not yet: recover from another",
            ));
        };
        // The name first: the other old servers must never take what comes then for their own cluster's.
        let identity = Identity {
            cluster: format!(
                "{}{RECOVERED}{:016x}",
                base(&self.identity.cluster),
                entropy.next_u64()
            ),
            ..self.identity.clone()
        };
        identity.write(&*self.directory)?;

        let before = self.last.max(applied.position);
        let term = self.term().max(before.map_or(0, |before| before.term)) + 1;
        let index = before.map_or(0, |before| before.index + 1);
        let alone = Membership::new(
            vec![BTreeSet::from([id])],
            BTreeMap::from([(id, Address::from(&me.peer))]),
        )
        .map_err(io::Error::other)?;
        let entry = Entry {
            log_id: LogId::from(Position { term, index }),
            payload: EntryPayload::Membership(alone),
        };
        let mut batch = Batch::new();
        if self.last < applied.position {
            // A snapshot was installed and the log had not followed yet.
            batch.delete_range(entry_key(0), AFTER_ENTRIES);
            batch.put(
                PURGED_KEY,
                codec::encode(&applied.position.unwrap_or_default()),
            );
        }
        batch.put(
            VOTE_KEY,
            codec::encode(&FlatVote::from(&Vote::new(term, id))),
        );
        batch.put(entry_key(index), entry_value(&entry));
        // Whoever was with it before stays behind.
        let seen = stored::read_known(&*self.disk)?.into_keys();
        let others = members.iter().map(|member| member.peer.id).chain(seen);
        for other in others.filter(|other| *other != id) {
            batch.put(gone_key(other), Vec::new());
        }
        self.disk
            .write(batch, Synced::Yes)
            .map_err(io::Error::other)?;
        Ok(WhoseDisk {
            id,
            cluster: identity.cluster,
        })
    }
}

/// Makes a directory whose state is there already, and is of no server yet, the one of a cluster's only member; synced when it returns.
/// What was left of an earlier try goes.
pub fn begin_alone(
    directory: &dyn Directory,
    cluster: &str,
    me: &seams::Peer,
    applied: Position,
    entropy: &dyn Entropy,
) -> io::Result<WhoseDisk> {
    if directory.exists(LOG).map_err(io::Error::other)? {
        directory.remove(LOG).map_err(io::Error::other)?;
    }
    let alone = Membership::new(
        vec![BTreeSet::from([me.id])],
        BTreeMap::from([(me.id, Address::from(me))]),
    )
    .map_err(io::Error::other)?;
    let (term, index) = (applied.term + 1, applied.index + 1);
    let entry = Entry {
        log_id: LogId::from(Position { term, index }),
        payload: EntryPayload::Membership(alone),
    };
    let mut batch = Batch::new();
    batch.put(PURGED_KEY, codec::encode(&applied));
    batch.put(
        VOTE_KEY,
        codec::encode(&FlatVote::from(&Vote::new(term, me.id))),
    );
    batch.put(entry_key(index), entry_value(&entry));
    let disk = directory
        .open(LOG, &DiskOptions::with_wal())
        .map_err(io::Error::other)?;
    disk.write(batch, Synced::Yes).map_err(io::Error::other)?;
    // Servers of the cluster whose state it was must never take this one for one of theirs.
    let cluster = format!("{cluster}{RECOVERED}{:016x}", entropy.next_u64());
    let identity = Identity::settle(directory, entropy, &cluster, me.id)?;
    Ok(WhoseDisk {
        id: identity.id,
        cluster: identity.cluster,
    })
}

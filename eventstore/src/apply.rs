//! apply: entry to events. Deterministic and total: it reads the state and the entry, nothing else.
//!
//! For each proposal: a repetition gets the first outcome ▸ fences ▸ expectations ▸ stamp ▸ event ▸ fold. What is rejected leaves no event.

use crate::codec::encode;
use crate::outcome::{Forgotten, Kept};
use crate::{
    Act, Actor, Cause, Change, ChangeRecord, Deletion, Digest, Entry, Envelope, Event, Expectation,
    Expected, Folded, Happened, Key, Object, Outcome, Position, Proposal, ProposalId, Rejection,
    Retention, Session, Stamps, State, Time, View, What,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// What came of an entry: what the disk writes, what watches and folds are given, what callers are told.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub position: Position,
    /// In order, each with its encoded envelope as the chain covers it.
    pub events: Vec<(Arc<Event>, Bytes)>,
    /// For every proposal of the entry, in order; a repetition's is the first one's.
    pub outcomes: Vec<(ProposalId, Outcome)>,
    /// Outcomes to write, and those they push out.
    pub kept: Vec<Kept>,
    pub forgotten: Vec<Forgotten>,
}

/// The entry speaks a higher level than this program knows: it must not be applied here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the log is at level {level}, this program knows level {knows}: upgrade this server; its data is untouched and it will go on from here"
)]
pub struct LevelTooHigh {
    pub level: u32,
    pub knows: u32,
}

/// Revisions that a restore may pass over: clients read them as signed numbers of 64 bits, and there must be many left.
const MOST_GAP: u64 = 1 << 40;

impl State {
    /// To be asked before `apply`: an entry that raises the level above what this program knows stops the server.
    pub fn can_apply(&self, entry: &Entry) -> Result<(), LevelTooHigh> {
        let raised = entry
            .proposals
            .iter()
            .filter_map(|proposal| match &proposal.act {
                Act::Found { level, .. } | Act::RaiseLevel { level } => Some(*level),
                Act::Objects(_)
                | Act::Round(_)
                | Act::OpenSession { .. }
                | Act::LoseSession { .. }
                | Act::Prune(_)
                | Act::Hold { .. }
                | Act::Release { .. }
                | Act::Restored { .. } => None,
            });
        let knows = self.knows();
        match raised.chain([self.view().level]).max() {
            Some(level) if level > knows => Err(LevelTooHigh { level, knows }),
            _ => Ok(()),
        }
    }

    pub fn apply(&mut self, position: Position, entry: &Entry) -> Applied {
        assert!(
            position.index > self.view().position.index,
            "entries are applied once, in order: {position:?} after {:?}",
            self.view().position
        );
        let view = self.view_mut();
        view.position = position;
        view.clock = view.clock.max(entry.clock);
        let mut applied = Applied {
            position,
            ..Applied::default()
        };
        for (slot, proposal) in entry.proposals.iter().enumerate() {
            let outcome = match self.outcomes.of_first(proposal.id, proposal.first_sent) {
                Some(first) => first.clone(),
                None => {
                    let outcome = self.take(slot as u32, proposal, &mut applied);
                    self.keep(proposal, &outcome, &mut applied);
                    outcome
                }
            };
            applied.outcomes.push((proposal.id, outcome));
        }
        applied
    }

    fn take(&mut self, slot: u32, proposal: &Proposal, applied: &mut Applied) -> Outcome {
        if let Err(rejection) = self.admits(proposal) {
            return Outcome::Rejected(Box::new(rejection));
        }
        let (first, round) = (self.view().revision + 1, self.view().round);
        match happen(self.view_mut(), proposal) {
            Err(rejection) => Outcome::Rejected(Box::new(rejection)),
            Ok((happened, objects)) => {
                let view = self.view_mut();
                // An event owns one number at least, though it changed no object.
                view.revision = view.revision.max(first);
                let envelope = Envelope {
                    first,
                    last: view.revision,
                    position: view.position,
                    slot,
                    time: view.clock,
                    id: proposal.id,
                    actor: proposal.actor.clone(),
                    cause: cause(proposal, round),
                    intent: proposal.intent.clone(),
                    happened,
                };
                let encoded = Bytes::from(encode(&envelope));
                view.digest = view.digest.chain(&encoded);
                let event = Event {
                    envelope,
                    digest: view.digest,
                    objects,
                };
                let outcome = Outcome::Accepted {
                    first,
                    last: event.revision(),
                };
                applied.events.push((Arc::new(event), encoded));
                outcome
            }
        }
    }

    /// Fences and expectations.
    fn admits(&self, proposal: &Proposal) -> Result<(), Rejection> {
        let view = self.view();
        if proposal.first_sent < self.outcomes.forgotten_up_to() && remembered(&proposal.actor) {
            return Err(Rejection::TooOld {
                first_sent: proposal.first_sent,
            });
        }
        match &proposal.actor {
            Actor::Reconciler { term, .. } if *term != view.position.term => {
                return Err(Rejection::OtherTerm {
                    decided: *term,
                    applied: view.position.term,
                });
            }
            Actor::Agent { node, epoch }
                if !view
                    .session(node)
                    .is_some_and(|open| open.epoch == *epoch && open.lost.is_none()) =>
            {
                return Err(Rejection::Fenced {
                    node: node.to_string(),
                    epoch: *epoch,
                });
            }
            Actor::User { .. }
            | Actor::Reconciler { .. }
            | Actor::Agent { .. }
            | Actor::Server { .. } => {}
        }
        proposal
            .expectations
            .iter()
            .try_for_each(|expectation| expect(view, expectation))
    }

    fn keep(&mut self, proposal: &Proposal, outcome: &Outcome, applied: &mut Applied) {
        if remembered(&proposal.actor) {
            let (kept, forgotten) =
                self.outcomes
                    .keep(applied.position.index, proposal.id, outcome.clone());
            applied.kept.push(kept);
            applied.forgotten.extend(forgotten);
        }
    }
}

fn cause(proposal: &Proposal, round: u64) -> Cause {
    match proposal.cause {
        Cause {
            revision,
            round: Cause::THIS_ROUND,
        } => Cause { revision, round },
        cause => cause,
    }
}

/// Reconcilers' outcomes are not kept: a repetition would come from another term, which fences it.
fn remembered(actor: &Actor) -> bool {
    !matches!(actor, Actor::Reconciler { .. })
}

fn expect(view: &View, expectation: &Expectation) -> Result<(), Rejection> {
    let current = view.get(&expectation.key);
    let holds = match &expectation.is {
        Expected::Absent => current.is_none(),
        Expected::Revision(revision) => {
            current.is_some_and(|object| object.revision() == *revision)
        }
        Expected::Uid(uid) => current.is_some_and(|object| object.uid() == *uid),
        Expected::Living => current.is_some_and(|object| object.living()),
    };
    if holds {
        return Ok(());
    }
    Err(Rejection::Expectation {
        key: expectation.key.clone(),
        expected: expectation.is.clone(),
        current: current.map(|object| object.revision()),
    })
}

/// Folds a proposal's act into the view. An error leaves the view as it was: all is looked at before anything is changed, for keeping
/// the view before would make each proposal copy what it touches.
fn happen(view: &mut View, proposal: &Proposal) -> Result<(Happened, Vec<Folded>), Rejection> {
    let not_now = |why: &str| Err(Rejection::NotNow(why.to_owned()));
    if view.level == 0 && !matches!(proposal.act, Act::Found { .. }) {
        return not_now("the cluster is not founded yet");
    }
    let level = proposal.level();
    if level > view.level.max(1) {
        return Err(Rejection::NotNow(format!(
            "the log is at level {}, this takes level {level}: every server must be upgraded first",
            view.level
        )));
    }
    let happened = match &proposal.act {
        Act::Found { .. } if view.level > 0 => return not_now("the cluster is founded already"),
        Act::Found { cluster, level } => {
            view.cluster = *cluster;
            view.level = *level;
            Happened::Founded {
                cluster: *cluster,
                level: *level,
            }
        }
        Act::Objects(changes) => return change_all(view, proposal, changes),
        Act::Round(round) => {
            view.round = view.revision + 1;
            Happened::Round(round.clone())
        }
        Act::OpenSession { node, server } => {
            let session = Session {
                server: server.clone(),
                epoch: view.revision + 1,
                opened: view.clock,
                lost: None,
            };
            view.set_session(node.clone(), session);
            Happened::SessionOpened {
                node: node.clone(),
                server: server.clone(),
            }
        }
        Act::LoseSession { node, epoch } => match view
            .session(node)
            .filter(|open| open.epoch == *epoch && open.lost.is_none())
        {
            None => return not_now("that session is not open"),
            Some(open) => {
                let lost = Session {
                    lost: Some(view.clock),
                    ..open.clone()
                };
                view.set_session(node.clone(), lost);
                Happened::SessionLost {
                    node: node.clone(),
                    epoch: *epoch,
                }
            }
        },
        Act::RaiseLevel { level } if *level <= view.level => {
            return not_now("the log is at that level already");
        }
        Act::RaiseLevel { level } => {
            view.level = *level;
            Happened::LevelRaised { level: *level }
        }
        Act::Prune(asked) => {
            let newest = view.revision;
            let moved = retention(view, |retention| retention.prune(asked, newest))?;
            Happened::Pruned(moved)
        }
        Act::Hold { name, revision } => {
            let newest = view.revision;
            retention(view, |retention| retention.hold(name, *revision, newest))?;
            Happened::Held {
                name: name.clone(),
                revision: *revision,
            }
        }
        Act::Release { name } => Happened::Released {
            name: name.clone(),
            revision: retention(view, |retention| retention.release(name))?,
        },
        Act::Restored { at, .. } if *at > view.revision => {
            return not_now("there is no such revision to restore");
        }
        Act::Restored { gap, .. } if *gap > MOST_GAP => return not_now("the gap is too wide"),
        Act::Restored { cluster, gap, at } => {
            let happened = Happened::Restored {
                before: view.cluster,
                digest: view.digest,
                cluster: *cluster,
                gap: *gap,
                at: *at,
            };
            view.cluster = *cluster;
            view.revision += (*gap).max(1);
            view.end_sessions();
            happened
        }
    };
    Ok((happened, Vec::new()))
}

fn retention<T>(
    view: &mut View,
    change: impl FnOnce(&mut Retention) -> Result<T, Rejection>,
) -> Result<T, Rejection> {
    change(Arc::make_mut(&mut view.retention))
}

fn change_all(
    view: &mut View,
    proposal: &Proposal,
    changes: &[Change],
) -> Result<(Happened, Vec<Folded>), Rejection> {
    possible(view, changes)?;
    let mut records = Vec::with_capacity(changes.len());
    let mut objects = Vec::with_capacity(changes.len());
    for (index, change) in changes.iter().enumerate() {
        let revision = view.revision + 1;
        let folded = match &change.what {
            What::Put {
                body,
                delete_grace_s,
            } => {
                let (cluster, clock) = (view.cluster, view.clock);
                let (before, object) = view.change(&change.key, |before| {
                    let stamps = stamps(cluster, clock, revision, before, *delete_grace_s);
                    let salt = proposal.salt.of_change(index as u32);
                    Arc::new(Object::stamp(change.key.clone(), body, stamps, salt))
                });
                Folded {
                    key: change.key.clone(),
                    revision,
                    before,
                    after: Some(object),
                }
            }
            What::Remove => {
                let before = view.remove(&change.key, revision);
                assert!(
                    before.is_some(),
                    "{} was looked at before anything was changed",
                    change.key
                );
                Folded {
                    key: change.key.clone(),
                    revision,
                    before,
                    after: None,
                }
            }
        };
        view.revision = revision;
        records.push(record(&folded));
        objects.push(folded);
    }
    Ok((Happened::Objects(records), objects))
}

/// Whether all changes can be made, one after the other: what is removed must be there by then.
fn possible(view: &View, changes: &[Change]) -> Result<(), Rejection> {
    let mut there: BTreeMap<&Key, bool> = BTreeMap::new();
    for change in changes {
        let key = &change.key;
        if !key.well_formed() {
            // Its bytes would not sort as it does, and could be another key's.
            return Err(Rejection::NotNow(format!("{key} is no key")));
        }
        let removes = matches!(change.what, What::Remove);
        if removes
            && !there
                .get(key)
                .copied()
                .unwrap_or_else(|| view.get(key).is_some())
        {
            return Err(Rejection::NotNow(format!("{key} is not there")));
        }
        if changes.len() > 1 {
            there.insert(key, !removes);
        }
    }
    Ok(())
}

/// uid and creation carry on from the version before; deletion is the clock plus the grace, and is only shortened later.
fn stamps(
    cluster: Uuid,
    clock: Time,
    revision: u64,
    before: Option<&Object>,
    delete_grace_s: Option<i64>,
) -> Stamps {
    let now = Time::from_s(clock.s());
    let asked = delete_grace_s.map(|grace_s| Deletion {
        at: Time::from_s(now.s().saturating_add(grace_s.max(0))),
        grace_s: match grace_s {
            Deletion::WITHOUT_GRACE => Deletion::WITHOUT_GRACE,
            grace_s => grace_s.max(0),
        },
    });
    let stamped = before.and_then(|object| object.stamps.deletion);
    let deletion = match (stamped, asked) {
        (Some(stamped), Some(asked)) => Some(if asked.at < stamped.at {
            asked
        } else {
            stamped
        }),
        (stamped, asked) => stamped.or(asked),
    };
    match before {
        Some(object) => Stamps {
            revision,
            deletion,
            ..object.stamps
        },
        None => Stamps {
            uid: uid(cluster, revision),
            revision,
            created: now,
            deletion,
        },
    }
}

/// RFC 9562 version 8, from what names this creation in this cluster and nowhere else.
fn uid(cluster: Uuid, revision: u64) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(
        &Digest::of(&[b"uid", cluster.as_bytes(), &revision.to_be_bytes()]).0[..16],
    );
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

fn record(folded: &Folded) -> ChangeRecord {
    let Some(object) = folded.after.as_ref().or(folded.before.as_ref()) else {
        unreachable!("a change has a version before or after");
    };
    ChangeRecord {
        key: folded.key.clone(),
        revision: folded.revision,
        before: folded.before.as_ref().map_or(0, |before| before.revision()),
        uid: object.stamps.uid,
        created: object.stamps.created,
        deletion: object.stamps.deletion,
        hash: folded.after.as_ref().map(|after| after.hash),
    }
}

/// The namespace's own key, which what lies in it expects to be living.
pub fn namespace_of(key: &Key) -> Option<Key> {
    (!key.namespace.is_empty()).then(|| Key::namespace_object(key.namespace.clone()))
}

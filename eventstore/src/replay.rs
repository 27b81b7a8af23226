//! Replay: an event as an archive has it goes into a state as it went in when it was accepted, without its proposal.
//!
//! Apply decides and stamps; here all that was decided and stamped is read from the envelope, and each body is checked against the hash
//! that the chain covers. What is kept and for how long is not replayed: an archive may reach back further than its cluster did.

use crate::codec::decode;
use crate::{
    Body, CodecError, Digest, Envelope, Event, Folded, Happened, Key, Object, Retention, Salt,
    Session, Stamps, State,
};
use bytes::Bytes;
use std::sync::Arc;

/// An event's bodies: of each change that made a version, in order. None: it is not kept.
pub type Bodies = Vec<Option<(Salt, Body)>>;

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("event {revision} cannot be read: {error}")]
    Unreadable { revision: u64, error: CodecError },
    #[error("after revision {after} comes an event that begins at {first}")]
    Gap { after: u64, first: u64 },
    #[error("{key} at revision {revision} is not what the event says")]
    Hash { key: Key, revision: u64 },
    #[error("{key} at revision {revision} is missing")]
    Missing { key: Key, revision: u64 },
}

impl State {
    /// Folds an encoded envelope with its bodies. Changes of resources that `left_out` names are passed over: their bodies are not
    /// all there. After an error the state is of no use.
    pub fn replay(
        &mut self,
        encoded: &[u8],
        bodies: Bodies,
        left_out: impl Fn(&str) -> bool,
    ) -> Result<Event, ReplayError> {
        let after = self.view().revision;
        let envelope: Envelope = decode(encoded).map_err(|error| ReplayError::Unreadable {
            revision: after + 1,
            error,
        })?;
        if envelope.first != after + 1 || envelope.last < envelope.first {
            return Err(ReplayError::Gap {
                after,
                first: envelope.first,
            });
        }
        let objects = self.replay_changes(&envelope.happened, bodies, left_out)?;
        let view = self.view_mut();
        match &envelope.happened {
            Happened::Founded { cluster, level } => {
                (view.cluster, view.level) = (*cluster, *level);
            }
            Happened::Round(_) => view.round = envelope.last,
            Happened::SessionOpened { node, server } => {
                let session = Session {
                    server: server.clone(),
                    epoch: envelope.last,
                    opened: envelope.time,
                    lost: None,
                };
                view.set_session(node.clone(), session);
            }
            Happened::SessionLost { node, epoch } => {
                let open = view.session(node).filter(|open| open.epoch == *epoch);
                if let Some(open) = open.cloned() {
                    let lost = Some(envelope.time);
                    view.set_session(node.clone(), Session { lost, ..open });
                }
            }
            Happened::LevelRaised { level } => view.level = *level,
            Happened::Restored { cluster, .. } => {
                view.cluster = *cluster;
                view.end_sessions();
            }
            Happened::Objects(_)
            | Happened::Pruned(_)
            | Happened::Held { .. }
            | Happened::Released { .. } => {}
        }
        view.position = envelope.position;
        view.clock = view.clock.max(envelope.time);
        view.revision = envelope.last;
        view.digest = view.digest.chain(encoded);
        Ok(Event {
            digest: view.digest,
            envelope,
            objects,
        })
    }

    fn replay_changes(
        &mut self,
        happened: &Happened,
        bodies: Bodies,
        left_out: impl Fn(&str) -> bool,
    ) -> Result<Vec<Folded>, ReplayError> {
        let mut bodies = bodies.into_iter();
        let mut objects = Vec::new();
        for record in happened.changes() {
            let body = record.hash.and_then(|_| bodies.next().flatten());
            if left_out(&record.key.resource) {
                continue;
            }
            let (key, revision) = (record.key.clone(), record.revision);
            let view = self.view_mut();
            let (before, after) = match (record.hash, body) {
                (None, _) => (view.remove(&key, revision), None),
                (Some(_), None) => return Err(ReplayError::Missing { key, revision }),
                (Some(hash), Some((salt, body))) => {
                    let stamps = Stamps {
                        uid: record.uid,
                        revision,
                        created: record.created,
                        deletion: record.deletion,
                    };
                    let object = Arc::new(Object::stamp(key.clone(), &body, stamps, salt));
                    if object.hash != hash {
                        return Err(ReplayError::Hash { key, revision });
                    }
                    let before = view.get(&key).cloned();
                    view.put(object.clone());
                    (before, Some(object))
                }
            };
            objects.push(Folded {
                key,
                revision,
                before,
                after,
            });
        }
        Ok(objects)
    }

    /// Where an archive begins that does not go back to the cluster's founding: as of the end of an event, with what lived then.
    pub fn begin(beginning: Beginning) -> Self {
        let mut state = Self::default();
        let view = state.view_mut();
        (view.cluster, view.level) = (beginning.cluster, beginning.level);
        (view.revision, view.digest) = (beginning.revision, beginning.digest);
        (view.position, view.clock) = (beginning.position, beginning.clock);
        state
    }

    /// How far back what is replayed can be read.
    pub fn set_retention(&mut self, retention: Retention) {
        self.view_mut().retention = Arc::new(retention);
    }

    /// One of what lived at the beginning.
    pub fn begin_with(&mut self, object: Object) -> Arc<Object> {
        let object = Arc::new(object);
        self.view_mut().put(object.clone());
        object
    }
}

/// What must be known of the events before those that are replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Beginning {
    pub cluster: uuid::Uuid,
    pub level: u32,
    /// The end of the last event before.
    pub revision: u64,
    pub digest: Digest,
    pub position: crate::Position,
    pub clock: crate::Time,
}

/// The bodies of what an event made, as replay takes them; of resources whose past is kept.
pub fn bodies_of(objects: impl IntoIterator<Item = Option<Arc<Object>>>) -> Bodies {
    let objects = objects.into_iter();
    let bodies = objects.map(|object| object.map(|object| (object.salt, object.body())));
    bodies.collect()
}

/// As it is written: an envelope as the chain covers it, and its bodies.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Archived {
    pub envelope: Bytes,
    pub bodies: Bodies,
}

//! What an event touched, with the typed views before and after: what `Reconciler::wakes` looks at.

use super::{Kind, Pod, Thing};
use eventstore::{Key, Text};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub enum Touched {
    Object {
        key: Key,
        revision: u64,
        before: Option<Arc<Thing>>,
        after: Option<Arc<Thing>>,
    },
    /// A session was opened or lost.
    Session { node: Text, revision: u64 },
}

impl Touched {
    pub fn revision(&self) -> u64 {
        match self {
            Self::Object { revision, .. } | Self::Session { revision, .. } => *revision,
        }
    }

    /// How much this change says about why `key` is decided: what was asked for > any change of the key itself > what lies around it.
    pub(crate) fn weight_for(&self, woken: &Key) -> u8 {
        match self {
            Self::Object {
                key, before, after, ..
            } if key == woken => {
                let wish = |thing: &Option<Arc<Thing>>| {
                    thing
                        .as_ref()
                        .map(|thing| (thing.meta.generation, thing.object.living()))
                };
                if wish(before) == wish(after) { 1 } else { 2 }
            }
            Self::Object { .. } | Self::Session { .. } => 0,
        }
    }

    /// The versions before and after, those that there are.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<Thing>> {
        let (before, after) = match self {
            Self::Object { before, after, .. } => (before.as_ref(), after.as_ref()),
            Self::Session { .. } => (None, None),
        };
        before.into_iter().chain(after)
    }

    /// The changed object's key, if it is of this resource.
    pub fn of(&self, resource: &str) -> Option<&Key> {
        match self {
            Self::Object { key, .. } => (&*key.resource == resource).then_some(key),
            Self::Session { .. } => None,
        }
    }

    /// The pod's versions before and after.
    pub fn pods(&self) -> impl Iterator<Item = (&Arc<Thing>, &Pod)> {
        self.versions().filter_map(|thing| match &thing.kind {
            Kind::Pod(pod) => Some((thing, &**pod)),
            _ => None,
        })
    }
}

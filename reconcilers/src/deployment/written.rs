//! A ReplicaSet's object as it is to be. A rollout keeps up to ten old ones beside the new, and most decisions leave them all alone: what
//! stays as it was read is not even parsed.

use super::annotate;
use crate::change::{grow_older, put};
use crate::world::Thing;
use eventstore::Change;
use serde_json::Value;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(super) struct Written {
    /// None: it is made by this decision.
    before: Option<Arc<Thing>>,
    /// None: as before.
    now: Option<Value>,
}

impl Written {
    pub fn read(thing: &Arc<Thing>) -> Self {
        Self {
            before: Some(thing.clone()),
            now: None,
        }
    }

    pub fn made(object: Value) -> Self {
        Self {
            before: None,
            now: Some(object),
        }
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        match (&self.now, &self.before) {
            (Some(now), _) => now["metadata"]["annotations"][name].as_str(),
            (None, Some(before)) => before.meta.annotation(name),
            (None, None) => None,
        }
    }

    /// An annotation that is a number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.annotation(name)?.parse().ok()
    }

    pub fn annotate(&mut self, name: &str, value: &str) {
        if self.annotation(name) != Some(value) {
            annotate(self.change(), name, value);
        }
    }

    /// To be changed.
    pub fn change(&mut self) -> &mut Value {
        let before = &self.before;
        self.now.get_or_insert_with(|| {
            let before = before.as_ref();
            before.map_or(Value::Null, |thing| thing.object.to_value())
        })
    }

    /// The change that writes it; None when it is as it was.
    pub fn into_change(self, key: &eventstore::Key) -> Option<Change> {
        let mut now = self.now?;
        if let Some(thing) = self.before {
            let before = thing.object.to_value();
            if now == before {
                return None;
            }
            if now["spec"] != before["spec"] {
                grow_older(&mut now);
            }
        }
        Some(put(key, &now))
    }
}

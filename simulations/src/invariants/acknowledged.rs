//! No acknowledged write is lost: what a client was told is in the history, at the revision it was told, with what it wrote; and a
//! counter's value is the number of its acknowledged increments, and at most those whose outcome nobody knows more.

use super::Violation;
use eventstore::Key;
use std::collections::BTreeMap;

const INVARIANT: &str = "no acknowledged write lost";

/// What clients were told.
#[derive(Default)]
pub struct Acknowledged {
    pub writes: Vec<Write>,
    /// counter -> (acknowledged increments, those whose outcome is unknown)
    pub counters: BTreeMap<Key, (u64, u64)>,
}

/// One write: at `revision` the object at `key` held `marker`.
#[derive(Clone, Debug)]
pub struct Write {
    pub key: Key,
    pub revision: u64,
    /// None: it was deleted.
    pub marker: Option<String>,
}

impl Acknowledged {
    /// `at`: an object's bytes as of a revision; `now`: a counter's value.
    pub fn check(
        &self,
        at: impl Fn(&Key, u64) -> Result<Option<Vec<u8>>, String>,
        now: impl Fn(&Key) -> Option<u64>,
    ) -> Result<(), Violation> {
        for write in &self.writes {
            let bytes =
                at(&write.key, write.revision).map_err(|error| Violation::new(INVARIANT, error))?;
            let held = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let right = match (&write.marker, &held) {
                (None, None) => true,
                (Some(marker), Some(held)) => held.contains(marker.as_str()),
                (None, Some(_)) | (Some(_), None) => false,
            };
            if !right {
                return Err(Violation::new(
                    INVARIANT,
                    format!("{write:?} was acknowledged; the history has {held:?}"),
                ));
            }
        }
        for (key, (acknowledged, unknown)) in &self.counters {
            let value = now(key).unwrap_or(0);
            if value < *acknowledged || value > acknowledged + unknown {
                let what = format!(
                    "{key} is {value}: {acknowledged} increments were acknowledged, of {unknown} nobody knows"
                );
                return Err(Violation::new(INVARIANT, what));
            }
        }
        Ok(())
    }
}

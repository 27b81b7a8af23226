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
    pub counters: BTreeMap<Key, Counter>,
    /// So many of the writes were looked at as the run went.
    looked_at: usize,
}

/// Increments of a counter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter {
    pub acknowledged: u64,
    /// Their outcome is unknown, yet or for good.
    pub unknown: u64,
    /// The newest acknowledged increment.
    pub revision: u64,
}

/// One write: at `revision` the object at `key` held `marker`.
#[derive(Clone, Debug)]
pub struct Write {
    pub key: Key,
    /// [`Write::FOR_GOOD`] of a deletion: nobody makes the name again.
    pub revision: u64,
    /// None: it was deleted.
    pub marker: Option<String>,
}

impl Write {
    pub const FOR_GOOD: u64 = u64::MAX;
}

impl Acknowledged {
    /// As the run goes: what is new and not above `upto`. `at`: an object's bytes as of a revision; `now`: a counter's value at `upto`.
    pub fn check(
        &mut self,
        upto: u64,
        at: impl Fn(&Key, u64) -> Result<Option<Vec<u8>>, String>,
        now: impl Fn(&Key) -> Option<u64>,
    ) -> Result<(), Violation> {
        while let Some(write) = self.writes.get(self.looked_at) {
            if write.revision != Write::FOR_GOOD {
                if write.revision > upto {
                    break;
                }
                write.check(&at)?;
            }
            self.looked_at += 1;
        }
        let folded = |counter: &Counter| counter.revision <= upto;
        let mut counters = self.counters.iter().filter(|(_, counter)| folded(counter));
        counters.try_for_each(|(key, counter)| counter.check(key, now(key)))
    }

    /// At the end: all of it.
    pub fn check_all(
        &self,
        at: impl Fn(&Key, u64) -> Result<Option<Vec<u8>>, String>,
        now: impl Fn(&Key) -> Option<u64>,
    ) -> Result<(), Violation> {
        self.writes.iter().try_for_each(|write| write.check(&at))?;
        let mut counters = self.counters.iter();
        counters.try_for_each(|(key, counter)| counter.check(key, now(key)))
    }
}

impl Write {
    fn check(
        &self,
        at: impl Fn(&Key, u64) -> Result<Option<Vec<u8>>, String>,
    ) -> Result<(), Violation> {
        let bytes =
            at(&self.key, self.revision).map_err(|error| Violation::new(INVARIANT, error))?;
        let held = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let right = match (&self.marker, &held) {
            (None, None) => true,
            (Some(marker), Some(held)) => held.contains(marker.as_str()),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if right {
            return Ok(());
        }
        Err(Violation::new(
            INVARIANT,
            format!("{self:?} was acknowledged; the history has {held:?}"),
        ))
    }
}

impl Counter {
    fn check(&self, key: &Key, value: Option<u64>) -> Result<(), Violation> {
        let value = value.unwrap_or(0);
        if (self.acknowledged..=self.acknowledged + self.unknown).contains(&value) {
            return Ok(());
        }
        let what = format!(
            "{key} is {value}: {} increments were acknowledged, of {} nobody knows",
            self.acknowledged, self.unknown
        );
        Err(Violation::new(INVARIANT, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_counter(acknowledged: u64, unknown: u64, revision: u64, value: u64) -> bool {
        let key = Key::new("configmaps", "default", "counter");
        let counter = Counter {
            acknowledged,
            unknown,
            revision,
        };
        let mut told = Acknowledged {
            counters: [(key, counter)].into(),
            ..Acknowledged::default()
        };
        told.check(10, |_, _| Ok(None), |_| Some(value)).is_ok()
    }

    #[test]
    fn a_counter_holds_what_was_acknowledged_and_no_more_than_was_tried() {
        // Rows: (acknowledged, unknown, newest revision, value, right at revision 10)
        for (acknowledged, unknown, revision, value, right) in [
            (3, 0, 9, 3, true),
            (3, 2, 9, 5, true),
            (3, 0, 9, 2, false),
            (3, 2, 9, 6, false),
            // The server that was looked at does not have the newest yet.
            (3, 0, 11, 2, true),
        ] {
            assert_eq!(
                check_counter(acknowledged, unknown, revision, value),
                right,
                "{acknowledged} {unknown} {revision} {value}"
            );
        }
    }

    #[test]
    fn a_write_is_looked_at_once_it_is_folded() {
        let write = |revision, marker: Option<&str>| Write {
            key: Key::new("configmaps", "default", "one"),
            revision,
            marker: marker.map(str::to_owned),
        };
        // Rows: (the write, what the history has, right at revision 10, right at the end)
        for (write, held, as_it_goes, at_the_end) in [
            (write(10, Some("a")), Some("a"), true, true),
            (write(10, Some("a")), Some("b"), false, false),
            (write(10, Some("a")), None, false, false),
            (write(11, Some("a")), None, true, false),
            (write(Write::FOR_GOOD, None), Some("a"), true, false),
            (write(Write::FOR_GOOD, None), None, true, true),
        ] {
            let row = format!("{write:?} {held:?}");
            let mut told = Acknowledged {
                writes: vec![write],
                ..Acknowledged::default()
            };
            let at = |_: &Key, _| Ok(held.map(|held| held.as_bytes().to_vec()));
            assert_eq!(told.check(10, at, |_| None).is_ok(), as_it_goes, "{row}");
            assert_eq!(told.check_all(at, |_| None).is_ok(), at_the_end, "{row}");
        }
    }
}

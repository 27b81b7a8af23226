//! All servers' digests are equal at equal revisions: the same history, bit for bit.

use super::Violation;
use eventstore::{Digest, Time};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Digests {
    /// revision -> (digest, the log's clock, who said so first)
    seen: BTreeMap<u64, (Digest, Time, String)>,
}

impl Digests {
    pub fn stands(
        &mut self,
        name: &str,
        revision: u64,
        digest: Digest,
        clock: Time,
    ) -> Result<(), Violation> {
        let (other, _, who) = self
            .seen
            .entry(revision)
            .or_insert_with(|| (digest, clock, name.to_owned()));
        if *other == digest {
            return Ok(());
        }
        Err(Violation::new(
            "equal digests",
            format!("at revision {revision} {who} has {other}, {name} has {digest}"),
        ))
    }
}

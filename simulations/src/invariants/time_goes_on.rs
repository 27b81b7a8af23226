//! No revision is reused or skipped, and stamped times only go forward, whatever wall clocks do: each event begins one revision after the
//! one before, owns a revision for each change and one at least, and is stamped no earlier. What a new cluster passes over that was made
//! from a backup is no cluster's of a run.

use super::{OfHistory, Violation};
use eventstore::{Event, Time};

#[derive(Default)]
pub struct TimeGoesOn {
    /// The last revision, and its time.
    before: Option<(u64, Time)>,
}

impl OfHistory for TimeGoesOn {
    fn event(&mut self, event: &Event) -> Result<(), Violation> {
        let (first, last, time) = (
            event.envelope.first,
            event.envelope.last,
            event.envelope.time,
        );
        let owns = event.objects.len().max(1) as u64;
        let (revision, stamped) = self
            .before
            .replace((last, time))
            .unwrap_or((0, Time::default()));
        if first != revision + 1 || last + 1 != first + owns || time < stamped {
            let (time, stamped) = (time.milli(), stamped.milli());
            let what = format!(
                "revisions {first} to {last} of {owns}, stamped {time}, follow revision {revision}, stamped {stamped}"
            );
            return Err(Violation::new("time goes on", what));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventstore::{
        Actor, Cause, Digest, Envelope, Folded, Happened, Intent, Key, Position, ProposalId,
    };
    use uuid::Uuid;

    /// Its revisions, how many objects it changed, and the second at which it was stamped.
    type Row = (u64, u64, usize, i64);

    fn event((first, last, objects, second): Row) -> Event {
        let folded = |index: usize| Folded {
            key: Key::new("configmaps", "default", "one"),
            revision: first + index as u64,
            before: None,
            after: None,
        };
        Event {
            envelope: Envelope {
                first,
                last,
                position: Position::default(),
                slot: 0,
                time: Time::from_s(second),
                id: ProposalId {
                    uuid: Uuid::from_u128(u128::from(first)),
                    attempt: 0,
                },
                actor: Actor::Server { name: "one".into() },
                cause: Cause::default(),
                intent: Intent::Update,
                happened: Happened::Objects(Vec::new()),
            },
            digest: Digest::default(),
            objects: (0..objects).map(folded).collect(),
        }
    }

    #[test]
    fn each_event_follows_the_one_before() {
        // What was written, and whether it may be.
        let rows: [(&[Row], bool); 11] = [
            (&[], true),
            (&[(1, 1, 0, 5), (2, 2, 1, 5), (3, 5, 3, 6)], true),
            // The first revision of all is 1.
            (&[(2, 2, 1, 5)], false),
            (&[(0, 0, 1, 5)], false),
            // Reused: the same event again, or another under the last one's number.
            (&[(1, 1, 1, 5), (1, 1, 1, 5)], false),
            (&[(1, 2, 2, 5), (2, 2, 1, 5)], false),
            // Skipped: between two events, and within one.
            (&[(1, 1, 1, 5), (3, 3, 1, 5)], false),
            (&[(1, 1, 1, 5), (2, 4, 2, 5)], false),
            (&[(1, 1, 1, 5), (2, 3, 0, 5)], false),
            // Two changes under one number.
            (&[(1, 1, 1, 5), (2, 2, 2, 5)], false),
            // The clock went back.
            (&[(1, 1, 1, 5), (2, 2, 1, 4)], false),
        ];
        for (events, right) in rows {
            let mut checked = TimeGoesOn::default();
            let held = events
                .iter()
                .try_for_each(|row| checked.event(&event(*row)));
            assert_eq!(held.is_ok(), right, "{events:?}: {held:?}");
        }
    }
}

//! Revisions and stamped times only go forward, whatever wall clocks do: each event begins one revision after the one before, and is
//! stamped no earlier.

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
        if let Some((revision, stamped)) = self.before.replace((last, time))
            && (first != revision + 1 || last < first || time < stamped)
        {
            let (time, stamped) = (time.milli(), stamped.milli());
            let what = format!(
                "revisions {first} to {last}, stamped {time}, follow revision {revision}, stamped {stamped}"
            );
            return Err(Violation::new("time goes on", what));
        }
        Ok(())
    }
}

//! What must hold, one property a file. `Watcher` looks at the cluster as it goes, and shows the properties of the history
//! every event, a little after it happened.

pub mod acknowledged;
pub mod bound_once;
pub mod capacity;
pub mod converged;
pub mod digests;
pub mod fenced;
pub mod freed;
pub mod left_behind;
pub mod linearizable;
pub mod once;
pub mod one_leader;
pub mod pruned;
pub mod restored;
pub mod time_goes_on;
pub mod unfenced;

use eventstore::Event;

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

impl Violation {
    pub fn new(invariant: &'static str, what: impl Into<String>) -> Self {
        Self {
            invariant,
            what: what.into(),
        }
    }
}

/// A property of the history: it is shown every event, in order.
pub trait OfHistory {
    fn event(&mut self, event: &Event) -> Result<(), Violation>;
}

/// The properties of the history.
pub fn of_history() -> Vec<Box<dyn OfHistory>> {
    vec![
        Box::<once::Once>::default(),
        Box::<fenced::Fenced>::default(),
        Box::<bound_once::BoundOnce>::default(),
        Box::<capacity::Capacity>::default(),
        Box::<time_goes_on::TimeGoesOn>::default(),
    ]
}

//! The scheduler.

/// What the scheduler has placed in this round.
#[derive(Debug, Default)]
pub struct Placed {}

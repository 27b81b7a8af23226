//! The scheduler and the controllers, pure.

//! The patches.

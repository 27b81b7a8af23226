//! The production code on a simulated network, disk and clock.

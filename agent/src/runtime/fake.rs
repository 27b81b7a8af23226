//! A container runtime in memory, for tests.

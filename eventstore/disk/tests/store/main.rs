//! The event store over RocksDB in a folder of its own: against a naive model, through crashes, and with a disk that lies.

#![allow(
    clippy::unwrap_used,
    reason = "tests, whose helpers clippy does not know for such"
)]

#[path = "../../../tests/language/mod.rs"]
mod language;

mod backup;
mod corruption;
mod crash;
mod current;
mod damaged_files;
mod folder;
mod model;
mod outcomes;
mod past;
mod prune;
mod start;
mod switch;
mod watches;

//! `apps`: what keeps pods running.

pub mod deployment;
pub mod replicaset;
pub mod scale;

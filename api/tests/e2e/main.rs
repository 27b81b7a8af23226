//! What a user does: real processes, real kubectl, real containerd, and SIGKILL. `cluster` starts and stops a `reckon up`.
//!
//! Clusters run one at a time, for several tests measure how long something took. They take sudo where the caller is not root.

#![allow(clippy::unwrap_used, reason = "all of this crate is a test")]

mod agent_alone;
mod api;
mod backup;
mod bad_input;
mod cluster;
mod damaged;
mod disk_full;
mod fenced;
mod image;
mod kill_loop;
mod kubectl_verbs;
mod lagging;
mod logs;
mod machine;
mod members;
mod no_majority;
mod node_lost;
mod past;
mod pods;
mod process;
mod recovery;
mod restore;
mod retention;
mod rollout;
mod servers_killed;
mod simulate;
mod synced;
mod tour;
mod unwell;
mod up_command;
mod upgrade;
mod wait;
mod writes;

//! A member that `reckon up` started ends with it, even when `up` is killed outright and can tell nobody.

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// Asks the kernel for SIGTERM when the parent dies. False when it has died already: then there is nothing to serve for.
///
/// The kernel watches the thread that started us, so `up` must start its members from its main thread.
pub fn follow(parent: i32) -> bool {
    prctl::set_pdeathsig(Signal::SIGTERM).is_ok() && getppid() == Pid::from_raw(parent)
}

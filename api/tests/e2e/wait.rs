//! Waiting for what takes a while, bounded, with what was seen last when it never comes.

use std::fmt::Debug;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);

/// Until `look` gives something. `what` is said when it does not within the limit.
pub fn until<T, E: Debug>(what: &str, limit_s: u64, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + Duration::from_secs(limit_s);
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => {
                panic!("{what}: not within {limit_s} s; last seen: {seen:?}")
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

//! The log's clock: what entries are stamped with.
//!
//! It is continuous, so that no jump of a wall clock expires a lease or evicts a node. The leader's clock runs with its
//! monotonic time and slews by at most 1 % towards the median of the members' wall clocks, so one clock that is wrong
//! moves nothing. It travels with every append to the followers, whose answers bring their wall clocks up. A new leader
//! goes on from the last clock heard plus the time since; one that has heard none since its start takes the later of the
//! last entry's clock and the median. It never goes back, within a reign or from one to the next, for it is never less
//! than what the last applied entry carries.
//!
//! Pure: monotonic and wall time arrive as arguments.

use std::collections::BTreeMap;

use crate::types::NodeId;

/// The clock slews by one part in so many.
const SLEW_DIVISOR: i64 = 100;
/// A member's wall clock counts for the median only so long after it was heard.
const READING_MAX_AGE_US: u64 = 30_000_000;

/// A point of monotonic time, in microseconds from an origin of the process's own.
pub(crate) type Monotonic = u64;

/// One server's view of the log's clock.
#[derive(Debug, Default)]
pub(crate) struct LogClock {
    /// What a leader last said, and when.
    heard: Option<Reading>,
    /// Other members' wall clocks, as last heard.
    walls: BTreeMap<NodeId, Reading>,
    reign: Option<Reign>,
}

/// A clock's value at a point of monotonic time.
#[derive(Debug, Clone, Copy)]
struct Reading {
    us: u64,
    at: Monotonic,
}

impl Reading {
    fn now(&self, at: Monotonic) -> u64 {
        self.us + at.saturating_sub(self.at)
    }
}

#[derive(Debug)]
struct Reign {
    term: u64,
    clock: Reading,
}

impl LogClock {
    /// A leader's message has come, with its clock.
    pub(crate) fn heard(&mut self, clock_ms: u64, at: Monotonic) {
        let reading = Reading {
            us: clock_ms * 1_000,
            at,
        };
        // Messages overtake each other; the one that says most is the latest.
        if self.heard.is_none_or(|before| before.us < reading.us) {
            self.heard = Some(reading);
        }
        self.reign = None;
    }

    /// A member's answer has come, with its wall clock.
    pub(crate) fn answered(&mut self, member: NodeId, wall_ms: u64, at: Monotonic) {
        self.walls.insert(
            member,
            Reading {
                us: wall_ms * 1_000,
                at,
            },
        );
    }

    /// Members that are no more don't count.
    pub(crate) fn members(&mut self, members: impl Fn(NodeId) -> bool) {
        self.walls.retain(|id, _| members(*id));
    }

    /// The clock of the leader of this term, in milliseconds. `last_entry_ms` is that of the last entry applied, and an
    /// entry of this term must have been, so that all that earlier leaders stamped is behind it.
    pub(crate) fn lead(
        &mut self,
        term: u64,
        at: Monotonic,
        wall_ms: u64,
        last_entry_ms: u64,
    ) -> u64 {
        let median = self.median(at, wall_ms);
        let floor = last_entry_ms * 1_000;
        let us = match &self.reign {
            Some(reign) if reign.term == term => slew(reign.clock, at, median).max(floor),
            _ => match self.heard {
                Some(heard) => heard.now(at).max(floor),
                None => median.max(floor),
            },
        };
        let clock = Reading { us, at };
        self.reign = Some(Reign { term, clock });
        // Should this server be led and lead again, it goes on from its own.
        self.heard = Some(clock);
        us / 1_000
    }

    /// What the clock is about now, on a server that does not lead: good for a time inside an object's body, not for a
    /// stamp.
    pub(crate) fn estimate(&self, at: Monotonic, wall_ms: u64, last_entry_ms: u64) -> u64 {
        let clock = self.heard.map_or(wall_ms, |heard| heard.now(at) / 1_000);
        clock.max(last_entry_ms)
    }

    /// By how much a wall clock is ahead of the log's clock. None: no leader has been heard.
    pub(crate) fn off_ms(&self, at: Monotonic, wall_ms: u64) -> Option<i64> {
        let heard = self.heard?.now(at) / 1_000;
        Some(wall_ms as i64 - heard as i64)
    }

    /// The members' median wall clock, this server's own among them; the lower one of two in the middle.
    fn median(&self, at: Monotonic, wall_ms: u64) -> u64 {
        let fresh = self
            .walls
            .values()
            .filter(|reading| at.saturating_sub(reading.at) <= READING_MAX_AGE_US);
        let mut walls: Vec<u64> = fresh.map(|reading| reading.now(at)).collect();
        walls.push(wall_ms * 1_000);
        walls.sort_unstable();
        walls[(walls.len() - 1) / 2]
    }
}

/// The clock run on to `at`, and bent towards `target` by no more than the slew.
fn slew(clock: Reading, at: Monotonic, target: u64) -> u64 {
    let ran = clock.now(at);
    let most = at.saturating_sub(clock.at) as i64 / SLEW_DIVISOR;
    let off = target as i64 - ran as i64;
    ran.saturating_add_signed(off.clamp(-most, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    /// Some afternoon.
    const T: u64 = 1_700_000_000_000;

    fn seconds(seconds: u64) -> Monotonic {
        seconds * 1_000_000
    }

    /// A leader of three whose members' clocks jump at 100 s, as in the row: the clock 10 s later.
    #[test]
    fn no_jump_of_one_clock_moves_it() {
        let check = |leader_jump: i64, followers_jump: [i64; 2], want_ms: u64| {
            let mut clock = LogClock::default();
            let wall = |at: u64, jump: i64| {
                (T + at * 1_000).saturating_add_signed(if at >= 100 { jump } else { 0 })
            };
            let mut before = 0;
            let mut now = 0;
            for at in 0..=110 {
                for (id, jump) in [2, 3].into_iter().zip(followers_jump) {
                    clock.answered(id, wall(at, jump), seconds(at));
                }
                now = clock.lead(1, seconds(at), wall(at, leader_jump), 0);
                assert!(now >= before, "went back from {before} to {now}");
                before = now;
            }
            assert_eq!(
                now - T,
                want_ms,
                "leader {leader_jump}, followers {followers_jump:?}"
            );
        };
        let hour = HOUR_MS as i64;
        check(0, [0, 0], 110_000);
        check(hour, [0, 0], 110_000);
        check(-hour, [0, 0], 110_000);
        check(0, [hour, 0], 110_000);
        check(0, [0, -hour], 110_000);
        check(hour, [-hour, 0], 110_000);
        // Two of three agree: it follows them, 1 % at most: eleven steps of a second each.
        check(0, [hour, hour], 110_110);
        check(-hour, [-hour, 0], 109_890);
        check(hour, [hour, hour], 110_110);
    }

    #[test]
    fn a_new_leader_goes_on_from_the_last_clock_heard() {
        // Heard at 50 s; what its wall clock says is an hour off. Leads at 53 s.
        let check = |wall_jump: i64, last_entry_ms: u64, want: u64| {
            let mut clock = LogClock::default();
            clock.heard(T, seconds(50));
            let wall = (T + 3_000).saturating_add_signed(wall_jump);
            assert_eq!(clock.lead(2, seconds(53), wall, last_entry_ms), want);
        };
        check(0, 0, T + 3_000);
        check(HOUR_MS as i64, 0, T + 3_000);
        check(-(HOUR_MS as i64), 0, T + 3_000);
        // An entry stamped after the last message that it heard.
        check(0, T + 3_500, T + 3_500);
    }

    #[test]
    fn after_a_restart_it_is_the_later_of_the_last_entry_and_the_median() {
        let check = |walls: [u64; 3], last_entry_ms: u64, want: u64| {
            let mut clock = LogClock::default();
            clock.answered(2, walls[1], seconds(1));
            clock.answered(3, walls[2], seconds(1));
            assert_eq!(clock.lead(7, seconds(1), walls[0], last_entry_ms), want);
        };
        check([T, T, T], 0, T);
        check([T + HOUR_MS, T, T], T - 5, T);
        check([T - HOUR_MS, T, T], T - 5, T);
        check([T - HOUR_MS, T - HOUR_MS, T], T - 5, T - 5);
        check([T, T, T], T + 9, T + 9);
    }

    #[test]
    fn what_overtakes_does_not_turn_it_back() {
        let mut clock = LogClock::default();
        clock.heard(T + 200, seconds(1));
        clock.heard(T + 100, seconds(1) + 1_000);
        assert_eq!(clock.estimate(seconds(1) + 1_000, 0, 0), T + 201);
    }

    #[test]
    fn one_that_leads_again_goes_on_from_what_it_heard_meanwhile() {
        let mut clock = LogClock::default();
        assert_eq!(clock.lead(1, seconds(0), T, 0), T);
        clock.heard(T + 10_050, seconds(10));
        assert_eq!(clock.lead(3, seconds(20), T + HOUR_MS, 0), T + 20_050);
    }

    #[test]
    fn a_wall_clock_that_is_off_shows_against_what_was_heard() {
        let mut clock = LogClock::default();
        assert_eq!(clock.off_ms(seconds(1), T), None);
        clock.heard(T, seconds(1));
        let check = |wall_jump: i64, want: i64| {
            let wall = (T + 4_000).saturating_add_signed(wall_jump);
            assert_eq!(clock.off_ms(seconds(5), wall), Some(want));
        };
        check(0, 0);
        check(HOUR_MS as i64, HOUR_MS as i64);
        check(-(HOUR_MS as i64), -(HOUR_MS as i64));
    }

    #[test]
    fn members_gone_or_silent_do_not_count() {
        let mut clock = LogClock::default();
        clock.answered(2, T + HOUR_MS, seconds(0));
        clock.answered(3, T + HOUR_MS, seconds(0));
        assert_eq!(clock.median(seconds(30), T), (T + HOUR_MS + 30_000) * 1_000);
        assert_eq!(clock.median(seconds(31), T), T * 1_000);
        clock.members(|id| id == 2);
        assert_eq!(clock.walls.len(), 1);
    }
}

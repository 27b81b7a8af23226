//! The generator: so many clients, each of which calls again as soon as it was answered.
//!
//! After a warm-up all calls that end within the window count. A client is a task; clients share connections, for HTTP/2 carries many
//! calls on one and a connection's TLS would otherwise be most of what is measured.

use crate::target::Connection;
use crate::usage::Usage;
use anyhow::{Result, bail};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Of all calls; more, and a row is no measurement.
const FAILED_MOST: f64 = 0.001;
/// Values are windows of this many random bytes: no system can compress them, and none is made anew for each call.
const NOISE_BYTES: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    Put,
    Get,
}

#[derive(Clone)]
pub struct Plan {
    pub operation: Operation,
    pub clients: usize,
    pub warm_up: Duration,
    pub duration: Duration,
    /// Keys are drawn from so many; puts before gets, so that they are there.
    pub keys: u32,
    pub noise: Noise,
}

#[derive(Clone)]
pub struct Noise {
    bytes: Bytes,
    len: usize,
}

impl Noise {
    /// Of values of this many bytes.
    pub fn new(len: usize) -> Self {
        let mut bytes = vec![0; NOISE_BYTES + len];
        StdRng::seed_from_u64(1).fill_bytes(&mut bytes);
        Self {
            bytes: bytes.into(),
            len,
        }
    }

    pub fn draw(&self, random: &mut StdRng) -> Bytes {
        let at = random.random_range(0..NOISE_BYTES);
        self.bytes.slice(at..at + self.len)
    }
}

/// What one window measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub seconds: f64,
    /// Sorted.
    pub latencies_us: Vec<u32>,
    pub failed: u64,
    pub members: Usage,
    pub generator: Usage,
}

impl Measured {
    /// Another window of the same.
    pub fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.latencies_us.extend_from_slice(&other.latencies_us);
        self.latencies_us.sort_unstable();
        self.failed += other.failed;
        self.members.cpu_s += other.members.cpu_s;
        self.members.written_bytes += other.members.written_bytes;
        self.generator.cpu_s += other.generator.cpu_s;
    }

    pub fn calls(&self) -> f64 {
        self.latencies_us.len() as f64
    }

    pub fn per_second(&self) -> f64 {
        self.calls() / self.seconds
    }

    /// In milliseconds; `quantile` from 0 to 1.
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        quantile_us(&self.latencies_us, quantile) / 1e3
    }

    pub fn members_cpu_s_per_10_000(&self) -> f64 {
        self.members.cpu_s / self.calls() * 1e4
    }

    pub fn written_bytes_per_call(&self) -> f64 {
        self.members.written_bytes / self.calls()
    }

    pub fn generator_cpu_us_per_call(&self) -> f64 {
        self.generator.cpu_s / self.calls() * 1e6
    }
}

/// Of sorted latencies; 0 of none.
pub fn quantile_us(sorted: &[u32], quantile: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * quantile).round() as usize;
    f64::from(sorted.get(at).copied().unwrap_or_default())
}

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

#[derive(Default)]
struct Counted {
    latencies_us: Vec<u32>,
    failed: u64,
    why: Option<anyhow::Error>,
}

/// Runs the plan over these connections. `members`: what the members have used so far.
pub async fn run(
    plan: &Plan,
    connections: &[Connection],
    members: impl Fn() -> Result<Usage>,
) -> Result<Measured> {
    let phase = Arc::new(AtomicU8::new(WARMING));
    let mut clients = JoinSet::new();
    for number in 0..plan.clients {
        let connection = connections[number % connections.len()].clone();
        clients.spawn(client(plan.clone(), number, connection, phase.clone()));
    }
    sleep(plan.warm_up).await;
    let (own_before, members_before) = (Usage::own()?, members()?);
    let started = Instant::now();
    phase.store(MEASURING, Ordering::Relaxed);
    sleep(plan.duration).await;
    phase.store(OVER, Ordering::Relaxed);
    let seconds = started.elapsed().as_secs_f64();
    let mut measured = Measured {
        seconds,
        members: members()? - members_before,
        generator: Usage::own()? - own_before,
        ..Measured::default()
    };
    let mut why = None;
    while let Some(counted) = clients.join_next().await {
        let mut counted = counted?;
        measured.latencies_us.append(&mut counted.latencies_us);
        measured.failed += counted.failed;
        why = why.or(counted.why);
    }
    measured.latencies_us.sort_unstable();
    if measured.failed as f64 > measured.calls() * FAILED_MOST {
        let (failed, calls) = (measured.failed, measured.calls());
        match why {
            Some(why) => return Err(why.context(format!("{failed} of {calls} calls failed"))),
            None => bail!("{failed} of {calls} calls failed"),
        }
    }
    anyhow::ensure!(measured.calls() > 0.0, "no call ended within the window");
    Ok(measured)
}

async fn client(
    plan: Plan,
    number: usize,
    mut connection: Connection,
    phase: Arc<AtomicU8>,
) -> Counted {
    let mut random = StdRng::seed_from_u64(number as u64);
    let mut counted = Counted::default();
    loop {
        let key = key(random.random_range(0..plan.keys));
        let value = plan.noise.draw(&mut random);
        let started = Instant::now();
        let result = match plan.operation {
            Operation::Put => connection.put(&key, value).await,
            Operation::Get => connection.get(&key).await,
        };
        match (phase.load(Ordering::Relaxed), result) {
            (OVER, _) => return counted,
            (MEASURING, Ok(())) => counted
                .latencies_us
                .push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX)),
            (MEASURING, Err(error)) => {
                counted.failed += 1;
                counted.why.get_or_insert(error);
            }
            _ => {}
        }
    }
}

pub fn key(number: u32) -> String {
    format!("bench/{number:010}")
}

/// Puts every key once, so that gets find them.
pub async fn fill(plan: &Plan, connections: &[Connection]) -> Result<()> {
    let mut tasks = JoinSet::new();
    let share = plan.keys.div_ceil(64);
    for first in (0..plan.keys).step_by(share as usize) {
        let mut connection = connections[(first / share) as usize % connections.len()].clone();
        let plan = plan.clone();
        tasks.spawn(async move {
            let mut random = StdRng::seed_from_u64(u64::from(first));
            for number in first..(first + share).min(plan.keys) {
                let value = plan.noise.draw(&mut random);
                connection.put(&key(number), value).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_measured() {
        let sorted: Vec<u32> = (1..=101).collect();
        for (quantile, expected) in [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0), (1.0, 101.0)] {
            assert_eq!(quantile_us(&sorted, quantile), expected, "{quantile}");
        }
        assert_eq!(quantile_us(&[], 0.5), 0.0);
    }
}

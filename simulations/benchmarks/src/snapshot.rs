//! A server that was away for longer than the log reaches back is sent the database: how long that takes, what memory it costs the leader
//! that sends it, and what those who write meanwhile notice.

use crate::api::Api;
use crate::cluster::{Cluster, MEMBERS, Place, System};
use crate::load::{Noise, quantile_us};
use crate::report::{self, table};
use crate::target::Connection;
use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const MIB: u64 = 1 << 20;
const VALUE_BYTES: usize = 4 << 10;
/// Few, so that entries stay small and the log, which keeps a number of them, reaches back less far.
const WRITERS: usize = 8;
const KEYS: u64 = 1_000;
/// Of writes beside, before the server comes back.
const BEFORE: Duration = Duration::from_secs(5);
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
/// The server must be back within.
const LIMIT: Duration = Duration::from_secs(300);
const INSTALLED: &str = "reckon_raft_snapshots_installed_total ";
const DATABASE_BYTES: &str = "reckon_history_size_bytes ";

#[derive(clap::Args, Clone)]
#[group(skip)]
pub struct Args {
    /// MiB of values that are written while a server is away, one run after another: what it is sent is all that were written until then
    #[arg(
        long,
        value_name = "MIB",
        value_delimiter = ',',
        default_value = "256,768"
    )]
    pub missed: Vec<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    database_mib: u64,
    seconds: f64,
    leader_before_mib: u64,
    leader_most_mib: u64,
    write_p99_before_ms: f64,
    write_p99_meanwhile_ms: f64,
}

pub async fn run(args: &Args, place: &Place) -> Result<Vec<Row>> {
    let mut cluster = Cluster::lay_out(System::Reckon, place)?;
    cluster.start().await?;
    let mut rows = Vec::new();
    for missed in &args.missed {
        report::progress(&format!("snapshot: {missed} MiB while a server is away"));
        rows.push(once(&mut cluster, missed * MIB).await?);
    }
    cluster.stop().await?;
    show(&rows);
    Ok(rows)
}

async fn once(cluster: &mut Cluster, missed: u64) -> Result<Row> {
    // Request `number` goes to that server.
    let api = Api::new(cluster, MEMBERS)?;
    let leader = leader(&api).await?;
    let away = (leader + 1) % MEMBERS;
    let other = (leader + 2) % MEMBERS;
    cluster.stop_one(away).await?;
    let noise = Noise::new(VALUE_BYTES);
    fill(cluster, &[leader, other], missed, &noise).await?;

    let before = beside(cluster, other, &noise, async {
        sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    let leader_before = cluster.resident_of(leader)?;
    let wanted = revision(&api, leader).await?;
    let begun = Instant::now();
    cluster.start_one(away)?;
    let mut most = leader_before;
    let running = &*cluster;
    let meanwhile = beside(running, other, &noise, async {
        loop {
            sleep(SAMPLE_EVERY).await;
            most = most.max(running.resident_of(leader)?);
            // It answers nobody until it is up.
            if revision(&api, away)
                .await
                .is_ok_and(|stands| stands >= wanted)
            {
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                bail!("the server is not back after {} s", LIMIT.as_secs());
            }
        }
    })
    .await?;
    let seconds = begun.elapsed().as_secs_f64();
    let metrics = api.get(away, "/metrics").await?;
    let metrics = String::from_utf8_lossy(&metrics);
    let metric = |name: &str| -> Result<u64> {
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.with_context(|| format!("/metrics has no {name}"))
    };
    ensure!(
        metric(INSTALLED)? > 0,
        "it caught up from the log: let it miss more"
    );
    Ok(Row {
        database_mib: metric(DATABASE_BYTES)? / MIB,
        seconds,
        leader_before_mib: leader_before / MIB,
        leader_most_mib: most / MIB,
        write_p99_before_ms: quantile_us(&before, 0.99) / 1e3,
        write_p99_meanwhile_ms: quantile_us(&meanwhile, 0.99) / 1e3,
    })
}

async fn status(api: &Api, number: usize) -> Result<Value> {
    Ok(serde_json::from_slice(
        &api.get(number, "/reckon/v1/status").await?,
    )?)
}

async fn leader(api: &Api) -> Result<usize> {
    for number in 0..MEMBERS {
        if status(api, number).await?["role"] == "leader" {
            return Ok(number);
        }
    }
    bail!("nobody leads")
}

async fn revision(api: &Api, number: usize) -> Result<u64> {
    status(api, number).await?["revision"]
        .as_u64()
        .context("/reckon/v1/status names no revision")
}

/// Writes so many bytes of values.
async fn fill(cluster: &Cluster, to: &[usize], bytes: u64, noise: &Noise) -> Result<()> {
    let (next, writes) = (Arc::new(AtomicU64::new(0)), bytes / VALUE_BYTES as u64);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let mut connection = cluster.connect(to[writer % to.len()]).await?;
        let (next, noise) = (next.clone(), noise.clone());
        writers.spawn(async move {
            let mut random = StdRng::seed_from_u64(writer as u64);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= writes {
                    return anyhow::Ok(());
                }
                let key = format!("missed-{}", number % KEYS);
                connection.put(&key, noise.draw(&mut random)).await?;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(())
}

/// One client writes through this server for as long as something else takes: how long each of its writes took, in µs, sorted.
async fn beside(
    cluster: &Cluster,
    through: usize,
    noise: &Noise,
    something: impl Future<Output = Result<()>>,
) -> Result<Vec<u32>> {
    let connection = cluster.connect(through).await?;
    let over = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(connection, noise.clone(), over.clone()));
    let result = something.await;
    over.store(true, Ordering::Relaxed);
    let took = writer.await??;
    result.map(|()| took)
}

async fn write(
    mut connection: Connection,
    noise: Noise,
    over: Arc<AtomicBool>,
) -> Result<Vec<u32>> {
    let mut random = StdRng::seed_from_u64(WRITERS as u64);
    let mut took_us = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        connection.put("beside", noise.draw(&mut random)).await?;
        took_us.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    took_us.sort_unstable();
    Ok(took_us)
}

fn show(rows: &[Row]) {
    let mut table = table(&[
        "database MiB",
        "back after s",
        "leader's MiB before",
        "at most meanwhile",
        "write p99 ms before",
        "meanwhile",
    ]);
    for row in rows {
        table.add_row([
            row.database_mib.to_string(),
            format!("{:.1}", row.seconds),
            row.leader_before_mib.to_string(),
            row.leader_most_mib.to_string(),
            format!("{:.2}", row.write_p99_before_ms),
            format!("{:.2}", row.write_p99_meanwhile_ms),
        ]);
    }
    println!("\nA server behind the log is sent the database");
    println!("{table}");
}

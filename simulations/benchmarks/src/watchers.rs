//! Many watchers of one resource while it is written to at an even pace: how long after it was sent a write reaches each of them, and
//! whether writes take longer for it.
//!
//! The pace is kept whatever the answers take, so that a slow moment shows as latency and not as fewer writes. Each write carries when it
//! was sent, by this program's own clock, and the watchers look for that in what they are sent.

use crate::api::{Api, MAPS, NAMESPACE, map};
use crate::cluster::{Cluster, Place, System};
use crate::load::quantile_us;
use crate::report::{self, table};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Objects that the writes go round.
const OBJECTS: usize = 100;
/// Watches on one connection.
const PER_CONNECTION: usize = 50;
const WRITERS_CONNECTIONS: usize = 3;
/// After the last write, for what is still under way.
const LINGER: Duration = Duration::from_secs(5);
/// What a write's value begins with; then microseconds, then a letter.
const MARK: &[u8] = b"\"v\":\"sent-";

#[derive(clap::Args, Clone)]
#[group(skip)]
pub struct Args {
    /// Watches of the one resource, spread over the servers
    #[arg(long, default_value_t = 1_000)]
    pub watchers: usize,
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub writes_per_second: u32,
    /// Seconds of writes, without the watchers and with them
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
    pub seconds: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    watchers: usize,
    writes: usize,
    write_p50_ms: f64,
    write_p99_ms: f64,
    deliveries: usize,
    delivery_p50_ms: f64,
    delivery_p99_ms: f64,
    servers_cpu: f64,
    own_cpu: f64,
}

pub async fn run(args: &Args, place: &Place) -> Result<Vec<Row>> {
    let mut cluster = Cluster::lay_out(System::Reckon, place)?;
    cluster.start().await?;
    let api = Api::new(&cluster, 1)?;
    api.make_namespace().await?;
    for number in 0..OBJECTS {
        let body = map(&name(number), "sent-0.");
        api.ask(0, Method::POST, MAPS, body).await?;
    }
    let mut rows = Vec::new();
    for watchers in [0, args.watchers] {
        report::progress(&format!(
            "watchers: {watchers}, {} writes a second",
            args.writes_per_second
        ));
        rows.push(watched(args, &cluster, watchers).await?);
    }
    cluster.stop().await?;
    show(&rows);
    Ok(rows)
}

async fn watched(args: &Args, cluster: &Cluster, watchers: usize) -> Result<Row> {
    let epoch = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let api = Api::new(cluster, watchers.div_ceil(PER_CONNECTION).max(1))?;
    let revision = api.revision().await?;
    let mut watching = JoinSet::new();
    for number in 0..watchers {
        let path = format!("{MAPS}?watch=1&resourceVersion={revision}&allowWatchBookmarks=false");
        let (status, body) = api.open(number, Method::GET, &path, Bytes::new()).await?;
        ensure!(status.is_success(), "a watch in {NAMESPACE}: {status}");
        watching.spawn(watch(body, epoch, over.clone()));
    }
    let (servers, own) = (cluster.usage()?, crate::usage::Usage::own()?);
    let started = Instant::now();
    // Connected by that thread, which then reads their answers too.
    let writers = Api::new(cluster, WRITERS_CONNECTIONS)?;
    let writes = on_its_own(write(args.clone(), writers, epoch)).await?;
    let seconds = started.elapsed().as_secs_f64();
    let servers_cpu = (cluster.usage()? - servers).cpu_s / seconds;
    let own_cpu = (crate::usage::Usage::own()? - own).cpu_s / seconds;
    sleep(LINGER).await;
    over.store(true, Ordering::Relaxed);
    let mut deliveries = Vec::new();
    while let Some(seen) = watching.join_next().await {
        deliveries.extend(seen??);
    }
    deliveries.sort_unstable();
    let expected = writes.len() * watchers;
    ensure!(
        deliveries.len() == expected,
        "{} of {expected} deliveries came within {} s",
        deliveries.len(),
        LINGER.as_secs()
    );
    let ms = |sorted: &[u32], quantile| quantile_us(sorted, quantile) / 1e3;
    Ok(Row {
        watchers,
        writes: writes.len(),
        write_p50_ms: ms(&writes, 0.5),
        write_p99_ms: ms(&writes, 0.99),
        deliveries: deliveries.len(),
        delivery_p50_ms: ms(&deliveries, 0.5),
        delivery_p99_ms: ms(&deliveries, 0.99),
        servers_cpu,
        own_cpu,
    })
}

/// On a thread of its own, so that no write waits here behind what a thousand watchers have to read.
async fn on_its_own<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let thread = tokio::task::spawn_blocking(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build()?.block_on(work)
    });
    thread.await?
}

/// Writes at an even pace; how long each took, sorted.
async fn write(args: Args, api: Api, epoch: Instant) -> Result<Vec<u32>> {
    let pace = Duration::from_secs_f64(1.0 / f64::from(args.writes_per_second));
    let writes = (args.seconds * f64::from(args.writes_per_second)) as usize;
    let mut tick = interval(pace);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    for number in 0..writes {
        let due = tick.tick().await;
        let api = api.clone();
        under_way.spawn(async move {
            let name = name(number % OBJECTS);
            let sent = due.duration_since(epoch).as_micros();
            let body = map(&name, &format!("sent-{sent}."));
            let path = format!("{MAPS}/{name}");
            api.ask(number, Method::PUT, &path, body).await?;
            anyhow::Ok(micros(due.elapsed()))
        });
    }
    let mut took = Vec::new();
    while let Some(done) = under_way.join_next().await {
        took.push(done??);
    }
    took.sort_unstable();
    Ok(took)
}

/// How long each delivery took, until it is over.
async fn watch(mut body: Incoming, epoch: Instant, over: Arc<AtomicBool>) -> Result<Vec<u32>> {
    let mut took = Vec::new();
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let frame = match timeout(Duration::from_millis(200), body.frame()).await {
            Err(_) if over.load(Ordering::Relaxed) => return Ok(took),
            Err(_) => continue,
            Ok(frame) => frame.context("a watch ended")?.context("a watch broke")?,
        };
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let now = epoch.elapsed();
        rest.extend_from_slice(data);
        // One event a line.
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
            continue;
        };
        for line in rest[..end].split(|byte| *byte == b'\n') {
            if let Some(sent) = sent(line) {
                took.push(micros(now.saturating_sub(sent)));
            }
        }
        rest.drain(..=end);
    }
}

/// When the write of an event was sent, since the epoch.
fn sent(line: &[u8]) -> Option<Duration> {
    let at = line.windows(MARK.len()).position(|window| window == MARK)?;
    let digits = line[at + MARK.len()..].split(|byte| *byte == b'.').next()?;
    let micros = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(Duration::from_micros(micros))
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn name(number: usize) -> String {
    format!("watched-{number:03}")
}

fn show(rows: &[Row]) {
    let mut table = table(&[
        "watchers",
        "writes",
        "write p50 ms",
        "write p99 ms",
        "deliveries",
        "delivery p50 ms",
        "delivery p99 ms",
        "servers' cores",
        "generator's cores",
    ]);
    for row in rows {
        table.add_row([
            row.watchers.to_string(),
            row.writes.to_string(),
            format!("{:.2}", row.write_p50_ms),
            format!("{:.2}", row.write_p99_ms),
            row.deliveries.to_string(),
            format!("{:.2}", row.delivery_p50_ms),
            format!("{:.2}", row.delivery_p99_ms),
            format!("{:.2}", row.servers_cpu),
            format!("{:.2}", row.own_cpu),
        ]);
    }
    println!("\nWatchers of one resource");
    println!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_told_by_its_mark() {
        for (line, micros) in [
            (
                &br#"{"type":"MODIFIED","object":{"data":{"v":"sent-1234."}}}"#[..],
                Some(1_234),
            ),
            (br#"{"type":"BOOKMARK"}"#, None),
            (br#"{"v":"sent-x."}"#, None),
        ] {
            assert_eq!(sent(line), micros.map(Duration::from_micros));
        }
    }
}

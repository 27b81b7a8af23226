//! A restart must cost what lives, and not what was: the same objects behind ever more events.
//!
//! All servers end at once, by SIGTERM and by SIGKILL, and are started again. It counts until each has taken a write, until the whole list
//! was served, and what memory they hold then. `past` goes on with the same cluster, for its history is dear to make.

use crate::api::{Api, MAPS};
use crate::cluster::{Cluster, Place, System};
use crate::fill::{self, Text};
use crate::report::{self, table};
use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::time::Instant;

pub const CONNECTIONS: usize = 12;
const MIB: f64 = (1 << 20) as f64;

#[derive(clap::Args, Clone)]
#[group(skip)]
pub struct Args {
    /// Objects that live
    #[arg(long, default_value_t = 10_000)]
    pub objects: u64,
    /// Events behind them, at which the servers are restarted
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    pub events: Vec<u64>,
    /// Bytes of an object's value
    #[arg(long, value_name = "BYTES", default_value_t = 512)]
    pub object_bytes: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    events: u64,
    how: &'static str,
    ready_ms: f64,
    list_ms: f64,
    resident_mib: Vec<f64>,
}

pub async fn run(args: &Args, place: &Place) -> Result<(Vec<Row>, Cluster)> {
    let mut cluster = Cluster::lay_out(System::Reckon, place)?;
    cluster.start().await?;
    let api = Api::new(&cluster, CONNECTIONS)?;
    let text = Text::new(args.object_bytes);
    api.make_namespace().await?;
    report::progress(&format!("restart: {} objects", args.objects));
    fill::create(&api, args.objects, &text).await?;
    let mut rows = Vec::new();
    let mut made = args.objects;
    for events in &args.events {
        ensure!(
            *events >= made,
            "--events must grow, and begin with --objects or more"
        );
        fill::update(&api, args.objects, events - made, &text).await?;
        made = *events;
        rows.push(Row {
            events: *events,
            how: "as it ran",
            ready_ms: 0.0,
            list_ms: list(&api, args.objects).await?,
            resident_mib: resident(&cluster)?,
        });
        for how in ["stopped", "killed"] {
            if how == "stopped" {
                cluster.stop().await?;
            } else {
                cluster.kill().await?;
            }
            let ready_ms = cluster.start().await?.as_secs_f64() * 1e3;
            rows.push(Row {
                events: *events,
                how,
                ready_ms,
                list_ms: list(&api, args.objects).await?,
                resident_mib: resident(&cluster)?,
            });
        }
    }
    show(&rows);
    Ok((rows, cluster))
}

/// Linearizable, whole.
async fn list(api: &Api, objects: u64) -> Result<f64> {
    let started = Instant::now();
    let bytes = api.get(0, MAPS).await?;
    let took = started.elapsed();
    let listed = bytes
        .windows(12)
        .filter(|at| *at == b"\"name\":\"obje")
        .count() as u64;
    ensure!(
        listed == objects,
        "{listed} of {objects} objects were listed"
    );
    Ok(took.as_secs_f64() * 1e3)
}

fn resident(cluster: &Cluster) -> Result<Vec<f64>> {
    let bytes = cluster.resident()?;
    Ok(bytes.into_iter().map(|bytes| bytes as f64 / MIB).collect())
}

fn show(rows: &[Row]) {
    let mut table = table(&[
        "events",
        "servers",
        "ready ms",
        "list ms",
        "resident MiB, each",
    ]);
    for row in rows {
        let resident: Vec<String> = row
            .resident_mib
            .iter()
            .map(|mib| format!("{mib:.0}"))
            .collect();
        table.add_row([
            row.events.to_string(),
            row.how.to_owned(),
            match row.ready_ms {
                0.0 => "-".to_owned(),
                ms => format!("{ms:.0}"),
            },
            format!("{:.0}", row.list_ms),
            resident.join(", "),
        ]);
    }
    println!("\nRestart of all servers, over the same living objects");
    println!("{table}");
}

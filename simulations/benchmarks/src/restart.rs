//! A restart must cost what lives, and not what was: the same objects behind ever more events.
//!
//! All servers end at once, by SIGTERM and by SIGKILL, and are started again. It counts until each has taken a write, until the whole list
//! was served, and what memory they hold then. Of the updates between, what each server wrote to its disk for one, and for what. `past`
//! goes on with the same cluster, for its history is dear to make.

use crate::api::{Api, MAPS};
use crate::cluster::{Cluster, Place, System};
use crate::fill::{self, Text};
use crate::report::{self, table};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
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
    /// Bytes that a server wrote for one of the events since the row before, by what for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    written: BTreeMap<String, f64>,
    /// Bytes of an object as it is served.
    object_bytes: f64,
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
        let before = written(&api, &cluster).await?;
        fill::update(&api, args.objects, events - made, &text).await?;
        let servers = cluster.addresses().len() as f64;
        let each = servers * (events - made).max(1) as f64;
        let mut written = written(&api, &cluster).await?;
        for (what, bytes) in &mut written {
            *bytes = (*bytes - before[what]) / each;
        }
        if *events == made {
            written.clear();
        }
        made = *events;
        let (list_ms, object_bytes) = list(&api, args.objects).await?;
        rows.push(Row {
            events: *events,
            how: "as it ran",
            ready_ms: 0.0,
            list_ms,
            resident_mib: resident(&cluster)?,
            written,
            object_bytes,
        });
        for how in ["stopped", "killed"] {
            if how == "stopped" {
                cluster.stop().await?;
            } else {
                cluster.kill().await?;
            }
            let ready_ms = cluster.start().await?.as_secs_f64() * 1e3;
            let (list_ms, object_bytes) = list(&api, args.objects).await?;
            rows.push(Row {
                events: *events,
                how,
                ready_ms,
                list_ms,
                resident_mib: resident(&cluster)?,
                written: BTreeMap::new(),
                object_bytes,
            });
        }
    }
    show(&rows);
    Ok((rows, cluster))
}

/// What all servers have written since they were started, by what for.
async fn written(api: &Api, cluster: &Cluster) -> Result<BTreeMap<String, f64>> {
    let mut written = BTreeMap::new();
    for server in 0..cluster.addresses().len() {
        let page = api.get(server, "/metrics").await?;
        let page = std::str::from_utf8(&page)?;
        let before = written.len();
        for (what, bytes) in page.lines().filter_map(written_by) {
            *written.entry(what.to_owned()).or_default() += bytes;
        }
        ensure!(
            !written.is_empty() && (server == 0 || written.len() == before),
            "/metrics does not say what was written"
        );
    }
    Ok(written)
}

/// `reckon_database_written_bytes_total{by="log"} 12`.
fn written_by(line: &str) -> Option<(&str, f64)> {
    let line = line.strip_prefix("reckon_database_written_bytes_total{by=\"")?;
    let (what, bytes) = line.split_once("\"} ")?;
    Some((what, bytes.parse().ok()?))
}

/// Linearizable, whole: how long it took, and the bytes of one object.
async fn list(api: &Api, objects: u64) -> Result<(f64, f64)> {
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
    Ok((
        took.as_secs_f64() * 1e3,
        bytes.len() as f64 / objects as f64,
    ))
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
    show_written(rows);
}

fn show_written(rows: &[Row]) {
    let rows: Vec<&Row> = rows.iter().filter(|row| !row.written.is_empty()).collect();
    let Some(first) = rows.first() else { return };
    let mut heads = vec!["events up to"];
    heads.extend(first.written.keys().map(String::as_str));
    heads.extend(["together", "an object", "times it"]);
    let mut table = table(&heads);
    for row in &rows {
        let together: f64 = row.written.values().sum();
        let mut cells = vec![row.events.to_string()];
        cells.extend(row.written.values().map(|bytes| format!("{bytes:.0}")));
        cells.extend([
            format!("{together:.0}"),
            format!("{:.0}", row.object_bytes),
            format!("{:.1}", together / row.object_bytes),
        ]);
        table.add_row(cells);
    }
    println!("\nBytes that each server's databases wrote for one update, by what for");
    println!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_from_the_metrics_page() {
        for (line, read) in [
            (
                "reckon_database_written_bytes_total{by=\"log\"} 12",
                Some(("log", 12.0)),
            ),
            ("reckon_database_written_bytes_total 12", None),
            ("# TYPE reckon_database_written_bytes counter", None),
        ] {
            assert_eq!(written_by(line), read, "{line}");
        }
    }
}

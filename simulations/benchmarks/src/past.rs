//! Reads as of a random past revision: what they cost must follow what lived then, and not all that ever did.
//!
//! Two shapes of history: many updates of the same objects, and as many names that came and went, few of which ever lived at once.

use crate::api::{Api, MAPS};
use crate::cluster::{Cluster, Place, System};
use crate::fill::{self, Lived, Text};
use crate::report::{self, table};
use crate::restart::{self, CONNECTIONS};
use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// One page, as kubectl asks for it.
const PAGE: usize = 500;

#[derive(clap::Args, Clone)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub restart: restart::Args,
    /// Names that come and go, for the second shape: two events each
    #[arg(long, default_value_t = 1_000_000)]
    pub names: u64,
    /// Reads of each kind that are measured, one after another; of whole lists a tenth
    #[arg(long, default_value_t = 2_000)]
    pub reads: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    shape: &'static str,
    events: u64,
    what: String,
    p50_ms: f64,
    p99_ms: f64,
}

/// `updated`: a cluster that holds the first shape already, from `restart`.
pub async fn run(args: &Args, place: &Place, updated: Option<Cluster>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let objects = args.restart.objects;
    let text = Text::new(args.restart.object_bytes);
    let mut cluster = match updated {
        Some(cluster) => cluster,
        None => {
            let events = *args.restart.events.iter().max().context("no --events")?;
            report::progress(&format!("past: {objects} objects, {events} events"));
            let cluster = started(place).await?;
            let api = Api::new(&cluster, CONNECTIONS)?;
            fill::create(&api, objects, &text).await?;
            fill::update(&api, objects, events.saturating_sub(objects), &text).await?;
            cluster
        }
    };
    let api = Api::new(&cluster, CONNECTIONS)?;
    let now = api.revision().await?;
    // All objects have been there since; what the servers wrote for themselves at the start is a few hundred events.
    let since = objects + (now - objects) / 100 + 1_000;
    let mut random = StdRng::seed_from_u64(3);
    let lived: Vec<Lived> = (0..args.reads)
        .map(|_| {
            let name = fill::name(random.random_range(0..objects));
            (name, random.random_range(since.min(now)..=now))
        })
        .collect();
    rows.extend(read(args, "updates of the same", &api, now, &lived).await?);
    cluster.stop().await?;
    drop(cluster);
    place.clear()?;

    report::progress(&format!("past: {} names that come and go", args.names));
    let mut cluster = started(place).await?;
    let api = Api::new(&cluster, CONNECTIONS)?;
    let lived = fill::come_and_go(&api, args.names, &text).await?;
    let now = api.revision().await?;
    rows.extend(read(args, "come and gone", &api, now, &lived).await?);
    cluster.stop().await?;
    show(&rows);
    Ok(rows)
}

async fn started(place: &Place) -> Result<Cluster> {
    let mut cluster = Cluster::lay_out(System::Reckon, place)?;
    cluster.start().await?;
    Api::new(&cluster, 1)?.make_namespace().await?;
    Ok(cluster)
}

async fn read(
    args: &Args,
    shape: &'static str,
    api: &Api,
    events: u64,
    lived: &[Lived],
) -> Result<Vec<Row>> {
    report::progress(&format!("past: reading ({shape})"));
    let mut random = StdRng::seed_from_u64(4);
    let mut draw = || lived[random.random_range(0..lived.len())].clone();
    let row = |what: String, (p50_ms, p99_ms)| Row {
        shape,
        events,
        what,
        p50_ms,
        p99_ms,
    };
    let object = fill::timed(args.reads, async |number| {
        let (name, revision) = draw();
        let path = format!("/at/{revision}{MAPS}/{name}");
        api.get(number as usize, &path).await.map(drop)
    })
    .await?;
    let page = fill::timed(args.reads, async |number| {
        let (_, revision) = draw();
        let path = format!("/at/{revision}{MAPS}?limit={PAGE}");
        api.get(number as usize, &path).await.map(drop)
    })
    .await?;
    let mut most = 0;
    let whole = fill::timed(args.reads.div_ceil(10), async |number| {
        let (_, revision) = draw();
        let path = format!("/at/{revision}{MAPS}");
        most = most.max(api.get(number as usize, &path).await?.len());
        Ok(())
    })
    .await?;
    Ok(vec![
        row("an object".to_owned(), object),
        row(format!("a page of {PAGE}"), page),
        row(format!("a list, up to {:.1} MB", most as f64 / 1e6), whole),
    ])
}

fn show(rows: &[Row]) {
    let mut table = table(&["revisions", "history", "read", "p50 ms", "p99 ms"]);
    for row in rows {
        table.add_row([
            row.events.to_string(),
            row.shape.to_owned(),
            row.what.clone(),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
        ]);
    }
    println!("\nReads as of a random past revision");
    println!("{table}");
}

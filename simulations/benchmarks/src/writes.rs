//! Reckon's proposals against etcd's puts, and linearizable reads of both: one unary call each, to any member.
//!
//! One system runs at a time. For each number of clients both take turns, in an order that alternates, and as often as there are rounds,
//! so that what the machine does meanwhile hits both. Their directories stay until the end, so each round goes on where the last one of
//! its system ended.

use crate::cluster::{Cluster, Place, System};
use crate::load::{self, Measured, Noise, Operation, Plan};
use crate::report::{self, Row};
use anyhow::Result;
use std::collections::BTreeMap;
use std::time::Duration;

/// Of which keys are drawn.
const KEYS: u32 = 10_000;

#[derive(clap::Args, Clone)]
#[group(skip)]
pub struct Args {
    /// Numbers of clients, each of which calls again as soon as it was answered
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    pub clients: Vec<usize>,
    /// HTTP/2 connections that the clients share, spread over the three members; one client has one
    #[arg(long, default_value_t = 12)]
    pub connections: usize,
    /// Seconds that are measured, in each row and round
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub duration: f64,
    /// Seconds before, which are not
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pub warm_up: f64,
    /// How often each row is measured; what is printed is of all together
    #[arg(long, default_value_t = 2)]
    pub rounds: usize,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 1_024)]
    pub value: usize,
    /// Measure one system alone
    #[arg(long, value_enum)]
    pub only: Option<Only>,
    /// Skip the reads
    #[arg(long)]
    pub no_reads: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Only {
    Etcd,
    Reckon,
}

pub async fn run(args: &Args, place: &Place) -> Result<Vec<Row>> {
    let mut clusters = Vec::new();
    if args.only != Some(Only::Reckon) {
        clusters.push(Cluster::lay_out(System::Etcd, place)?);
    }
    if args.only != Some(Only::Etcd) {
        clusters.push(Cluster::lay_out(System::Reckon, place)?);
    }
    let noise = Noise::new(args.value);
    let mut sums: BTreeMap<(bool, usize, bool), Measured> = BTreeMap::new();
    for round in 0..args.rounds {
        for clients in &args.clients {
            // Who went first goes second the next time.
            clusters.reverse();
            for cluster in &mut clusters {
                let system = cluster.system();
                report::progress(&format!(
                    "round {} of {}: {system}, {clients} clients",
                    round + 1,
                    args.rounds
                ));
                for (operation, measured) in turn(args, cluster, *clients, &noise).await? {
                    let of = (
                        operation == Operation::Get,
                        *clients,
                        system == System::Reckon,
                    );
                    sums.entry(of).or_default().add(&measured);
                }
            }
        }
    }
    let rows = sums.iter().map(|((reads, clients, reckon), measured)| {
        let operation = if *reads {
            Operation::Get
        } else {
            Operation::Put
        };
        let system = if *reckon {
            System::Reckon
        } else {
            System::Etcd
        };
        Row::new(operation, system, *clients, measured)
    });
    let rows: Vec<Row> = rows.collect();
    report::writes(&rows);
    Ok(rows)
}

/// A cluster's turn with so many clients: started, filled, written to, read from, stopped.
async fn turn(
    args: &Args,
    cluster: &mut Cluster,
    clients: usize,
    noise: &Noise,
) -> Result<Vec<(Operation, Measured)>> {
    cluster.start().await?;
    let connections = cluster.connections(args.connections.min(clients)).await?;
    let plan = Plan {
        operation: Operation::Put,
        clients,
        warm_up: Duration::from_secs_f64(args.warm_up),
        duration: Duration::from_secs_f64(args.duration),
        keys: KEYS,
        noise: noise.clone(),
    };
    load::fill(&plan, &connections).await?;
    let written = load::run(&plan, &connections, || cluster.usage()).await?;
    let mut measured = vec![(Operation::Put, written)];
    if !args.no_reads {
        let plan = Plan {
            operation: Operation::Get,
            ..plan
        };
        let read = load::run(&plan, &connections, || cluster.usage()).await?;
        measured.push((Operation::Get, read));
    }
    cluster.stop().await?;
    Ok(measured)
}

//! What is said: progress on stderr, tables on stdout, and everything again as JSON for programs.

use crate::cluster::System;
use crate::load::{Measured, Operation};
use comfy_table::{CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};
use serde::Serialize;

pub fn progress(what: &str) {
    eprintln!("{what}");
}

/// One system with one number of clients.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub operation: Operation,
    pub system: System,
    pub clients: usize,
    pub calls: u64,
    pub failed: u64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub members_cpu_s_per_10_000: f64,
    pub written_bytes_per_call: f64,
    pub generator_cpu_us_per_call: f64,
}

impl Row {
    pub fn new(operation: Operation, system: System, clients: usize, measured: &Measured) -> Self {
        Self {
            operation,
            system,
            clients,
            calls: measured.calls() as u64,
            failed: measured.failed,
            per_second: measured.per_second(),
            p50_ms: measured.latency_ms(0.5),
            p99_ms: measured.latency_ms(0.99),
            p999_ms: measured.latency_ms(0.999),
            members_cpu_s_per_10_000: measured.members_cpu_s_per_10_000(),
            written_bytes_per_call: measured.written_bytes_per_call(),
            generator_cpu_us_per_call: measured.generator_cpu_us_per_call(),
        }
    }

    /// Calls a second if the generator had the machine to itself.
    fn generator_ceiling(&self) -> f64 {
        cores() * 1e6 / self.generator_cpu_us_per_call
    }

    /// Calls a second at which generator and members together leave no CPU idle: what CPU alone allows here.
    fn machine_ceiling(&self) -> f64 {
        let members_us = self.members_cpu_s_per_10_000 * 100.0;
        cores() * 1e6 / (self.generator_cpu_us_per_call + members_us)
    }
}

fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

pub fn writes(rows: &[Row]) {
    for (operation, title) in [
        (
            Operation::Put,
            "Writes, each acknowledged after a sync on a majority",
        ),
        (Operation::Get, "Linearizable reads"),
    ] {
        let rows: Vec<&Row> = rows
            .iter()
            .filter(|row| row.operation == operation)
            .collect();
        if rows.is_empty() {
            continue;
        }
        println!("\n{title}");
        println!("{}", comparison(&rows));
        println!(
            "\nThe generator, and what it and the machine's {} cores allow",
            cores()
        );
        println!("{}", ceilings(&rows));
    }
}

fn comparison(rows: &[&Row]) -> Table {
    let mut table = table(&[
        "clients",
        "system",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "members' CPU s / 10,000",
        "bytes to disk / call",
        "failed",
    ]);
    for row in rows {
        table.add_row([
            row.clients.to_string(),
            row.system.to_string(),
            format!("{:.0}", row.per_second),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            format!("{:.2}", row.members_cpu_s_per_10_000),
            format!("{:.0}", row.written_bytes_per_call),
            row.failed.to_string(),
        ]);
        let etcd = rows
            .iter()
            .find(|other| other.system == System::Etcd && other.clients == row.clients);
        if let Some(etcd) = etcd.filter(|_| row.system == System::Reckon) {
            let ratio = |of: fn(&Row) -> f64| ratio(of(row), of(etcd));
            table.add_row([
                String::new(),
                "ratio".to_owned(),
                ratio(|row| row.per_second),
                ratio(|row| row.p50_ms),
                ratio(|row| row.p99_ms),
                ratio(|row| row.members_cpu_s_per_10_000),
                written(row, etcd),
                String::new(),
            ]);
        }
    }
    table
}

fn ratio(of: f64, to: f64) -> String {
    format!("{:.2} ×", of / to)
}

/// Of what is shown as no byte a call, as it is where calls only read, there is no ratio.
fn written(row: &Row, etcd: &Row) -> String {
    match etcd.written_bytes_per_call.round() {
        0.0 => "-".to_owned(),
        _ => ratio(row.written_bytes_per_call, etcd.written_bytes_per_call),
    }
}

fn ceilings(rows: &[&Row]) -> Table {
    let mut table = table(&[
        "clients",
        "system",
        "generator's CPU µs / call",
        "generator alone: calls/s",
        "no CPU idle: calls/s",
        "of that reached",
    ]);
    for row in rows {
        table.add_row([
            row.clients.to_string(),
            row.system.to_string(),
            format!("{:.0}", row.generator_cpu_us_per_call),
            format!("{:.0}", row.generator_ceiling()),
            format!("{:.0}", row.machine_ceiling()),
            format!("{:.0} %", row.per_second / row.machine_ceiling() * 100.0),
        ]);
    }
    table
}

/// Numbers stand at the right.
pub fn table(headers: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(headers);
    for (number, column) in table.column_iter_mut().enumerate() {
        if number != 1 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_write_nothing_have_no_ratio_of_bytes() {
        let row = |bytes| Row {
            operation: Operation::Get,
            system: System::Etcd,
            clients: 1,
            calls: 1,
            failed: 0,
            per_second: 1.0,
            p50_ms: 1.0,
            p99_ms: 1.0,
            p999_ms: 1.0,
            members_cpu_s_per_10_000: 1.0,
            written_bytes_per_call: bytes,
            generator_cpu_us_per_call: 1.0,
        };
        // bytes of Reckon, of etcd, what is shown
        for (reckon, etcd, shown) in [
            (0.0, 0.0, "-"),
            (3.0, 0.2, "-"),
            (0.0, 4.0, "0.00 ×"),
            (6_000.0, 4_000.0, "1.50 ×"),
        ] {
            let [reckon, etcd] = [reckon, etcd].map(row);
            assert_eq!(written(&reckon, &etcd), shown);
        }
    }
}

//! What commands print: text for people, JSON or YAML for programs.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Json,
    Yaml,
}

/// `value` where a format was asked for, else `text`.
pub fn print(
    format: Option<Format>,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<()> {
    let text = match format {
        Some(Format::Json) => {
            serde_json::to_string_pretty(value).context("cannot write JSON")? + "\n"
        }
        Some(Format::Yaml) => yaml(value)?,
        None => text(),
    };
    write(&text)
}

/// A reader that has gone away (`reckon history … | head`) is no error.
pub fn write(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// A line of something that goes on. Where nobody reads it any more (`reckon simulate … | head`), the process ends.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush())
        && error.kind() == ErrorKind::BrokenPipe
    {
        std::process::exit(0);
    }
}

/// Block style, no line folded: what other tools' simple readers take too.
pub fn yaml(value: &impl Serialize) -> Result<String> {
    let mut options = serde_saphyr::SerializerOptions::default();
    options.folded_wrap_chars = 1 << 20;
    serde_saphyr::to_string_with_options(value, options).context("cannot write YAML")
}

/// Columns as kubectl prints them: a header in capitals, three blanks between.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_string() + "\n")
        .collect()
}

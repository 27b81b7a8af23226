//! `reckon server --inspect` and `--recover-from-disk`: a server that does not run, told to a person.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use server::offline::{self, Inspection, Recovery, Stands};

use super::output::{self, Format, table};

pub fn inspect(data_dir: &Path, format: Option<Format>) -> Result<ExitCode> {
    let found = offline::inspect(data_dir)
        .with_context(|| format!("{} cannot be inspected", data_dir.display()))?;
    output::print(format, &found, || inspected(&found))?;
    Ok(ExitCode::SUCCESS)
}

pub fn recover(data_dir: &Path, format: Option<Format>) -> Result<ExitCode> {
    let made = offline::recover(data_dir)
        .with_context(|| format!("{} cannot be recovered from", data_dir.display()))?;
    output::print(format, &made, || recovered(&made))?;
    Ok(ExitCode::SUCCESS)
}

fn inspected(found: &Inspection) -> String {
    let name = found.name.as_deref().unwrap_or("no member");
    let head = format!(
        "server {} ({name}) of cluster {}\nlast term {}, last log entry {}.{}\n\n",
        found.id, found.cluster, found.term, found.last_term, found.last_index
    );
    let row = |what: &str, stands: &Stands| {
        vec![
            what.to_string(),
            stands.index.to_string(),
            stands.revision.to_string(),
            stands.time.clone(),
            stands.digest.chars().take(16).collect(),
        ]
    };
    let stands = table(
        &["", "INDEX", "REVISION", "TIME", "DIGEST"],
        vec![
            row("state on disk", &found.applied),
            row("known to be committed", &found.committed),
            row("with the whole log", &found.whole),
        ],
    );
    let members = found
        .members
        .iter()
        .map(|member| {
            vec![
                member.id.to_string(),
                member.name.clone(),
                if member.voter { "voter" } else { "learner" }.to_string(),
                member.address.clone(),
            ]
        })
        .collect();
    let members = table(&["ID", "MEMBER", "ROLE", "ADDRESS"], members);
    format!("{head}{stands}\n{members}")
}

fn recovered(made: &Recovery) -> String {
    let Recovery { before, cluster } = made;
    let others: Vec<&str> = before
        .members
        .iter()
        .filter(|member| member.id != before.id)
        .map(|member| member.name.as_str())
        .collect();
    let name = before.name.as_deref().unwrap_or("this server");
    let uncertain = match before.uncommitted_entries {
        0 => "All of its log is known to have been committed.".to_string(),
        1 => "1 entry at the end of its log is not known to have been committed; it is kept, for it may have been acknowledged."
            .to_string(),
        count => format!(
            "{count} entries at the end of its log are not known to have been committed; they are kept, for they may have been \
             acknowledged."
        ),
    };
    let missing = if others.is_empty() {
        String::new()
    } else {
        format!(
            "\nWhat {} had beyond that, this server never had: it is missing, and revisions above {} will be given anew. See with \
             --inspect on their disks, if they are there, before you start this one.",
            others.join(" and "),
            before.whole.revision
        )
    };
    format!(
        "{name} is the only member of cluster {cluster} now.\nIt stands at revision {}, of {} (log entry {}).\n{uncertain}{missing}\n\n\
         Start it as before. The old other servers are refused by it: never start them again while anybody can reach them, for they \
         could go on among\nthemselves. Then add new ones, with empty directories: reckon member add NAME HOST:PORT --promote\n",
        before.whole.revision, before.whole.time, before.whole.index
    )
}

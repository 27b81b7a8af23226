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
    let Recovery {
        before,
        cluster,
        revision,
        may_be_missing,
    } = made;
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
    let missing = may_be_missing.as_ref().map(|missing| {
        format!(
            "\nWhat {} had beyond that, this server never had: it is missing, and revisions above {} will be given anew. See with \
             --inspect on their disks, if they are there, before you start this one.",
            missing.on_servers.join(" and "),
            missing.above_revision
        )
    });
    format!(
        "{name} is the only member of cluster {cluster} now.\nIt stands at revision {revision}, of {} (log entry {}).\n{uncertain}{}\n\n\
         Start it as before. The old other servers are refused by it: never start them again while anybody can reach them, for they \
         could go on among\nthemselves. Then add new ones, with empty directories: reckon member add NAME HOST:PORT --promote\n",
        before.whole.time,
        before.whole.index,
        missing.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use server::offline::{InspectedMember, MayBeMissing};

    fn inspection(members: &[&str], uncommitted_entries: u64) -> Inspection {
        let stands = |index: u64, revision: u64| Stands {
            index,
            revision,
            time: format!("2026-11-21T08:00:{revision}Z"),
            digest: "0123456789abcdef0123".into(),
        };
        let members = (1..).zip(members).map(|(id, name)| InspectedMember {
            id,
            name: (*name).to_string(),
            address: format!("10.0.0.{id}:6443"),
            voter: id != 3,
        });
        Inspection {
            id: 1,
            name: Some("server-1".into()),
            cluster: "c0ffee".into(),
            term: 7,
            last_term: 6,
            last_index: 40,
            applied: stands(30, 20),
            committed: stands(38, 25),
            whole: stands(40, 27),
            uncommitted_entries,
            members: members.collect(),
        }
    }

    #[test]
    fn what_a_disk_holds_in_words() {
        assert_eq!(
            inspected(&inspection(&["server-1", "server-2", "server-3"], 2)),
            "\
server 1 (server-1) of cluster c0ffee
last term 7, last log entry 6.40

                        INDEX   REVISION   TIME                   DIGEST
state on disk           30      20         2026-11-21T08:00:20Z   0123456789abcdef
known to be committed   38      25         2026-11-21T08:00:25Z   0123456789abcdef
with the whole log      40      27         2026-11-21T08:00:27Z   0123456789abcdef

ID   MEMBER     ROLE      ADDRESS
1    server-1   voter     10.0.0.1:6443
2    server-2   voter     10.0.0.2:6443
3    server-3   learner   10.0.0.3:6443
"
        );
    }

    #[test]
    fn what_a_recovery_made_in_words() {
        let missing = |servers: &[&str]| MayBeMissing {
            above_revision: 27,
            after: "2026-11-21T08:00:27Z".into(),
            on_servers: servers.iter().map(ToString::to_string).collect(),
        };
        // members; entries not known to be committed; what may be missing; what is said of both
        let rows: [(&[&str], u64, Option<MayBeMissing>, &str); 3] = [
            (
                &["server-1"],
                0,
                None,
                "All of its log is known to have been committed.",
            ),
            (
                &["server-1", "server-2"],
                1,
                Some(missing(&["server-2"])),
                "1 entry at the end of its log is not known to have been committed; it is kept, for it may have been acknowledged.\n\
                 What server-2 had beyond that, this server never had: it is missing, and revisions above 27 will be given anew. See \
                 with --inspect on their disks, if they are there, before you start this one.",
            ),
            (
                &["server-1", "server-2", "server-3"],
                2,
                Some(missing(&["server-2", "server-3"])),
                "2 entries at the end of its log are not known to have been committed; they are kept, for they may have been \
                 acknowledged.\nWhat server-2 and server-3 had beyond that, this server never had: it is missing, and revisions above \
                 27 will be given anew. See with --inspect on their disks, if they are there, before you start this one.",
            ),
        ];
        for (members, uncommitted, may_be_missing, says) in rows {
            let made = Recovery {
                before: inspection(members, uncommitted),
                cluster: "c0ffee/recovered-1".into(),
                revision: 27,
                may_be_missing,
            };
            assert_eq!(
                recovered(&made),
                format!(
                    "server-1 is the only member of cluster c0ffee/recovered-1 now.\nIt stands at revision 27, of \
                     2026-11-21T08:00:27Z (log entry 40).\n{says}\n\nStart it as before. The old other servers are refused by it: \
                     never start them again while anybody can reach them, for they could go on among\nthemselves. Then add new ones, \
                     with empty directories: reckon member add NAME HOST:PORT --promote\n"
                )
            );
        }
    }
}

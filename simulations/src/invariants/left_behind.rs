//! The log's level is one that every member can read: none is stopped by a level that was raised while it was a member, dead or alive.
//!
//! The leader knows who the members were when it was raised: who left before is none of them any more.

use super::Violation;

/// `level`: the log's, as the leader has it. `members`: their names, and what their programs know; None: it has just been removed.
pub fn check<'a>(
    level: u32,
    members: impl IntoIterator<Item = (&'a str, Option<u32>)>,
) -> Result<(), Violation> {
    for (name, knows) in members {
        if let Some(knows) = knows.filter(|knows| *knows < level) {
            return Err(Violation::new(
                "no member is left behind",
                format!("the log is at level {level}, and {name}, a member, knows level {knows}"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_knows_less_is_told() {
        // Rows: (the log's level, what the members know, right)
        for (level, knows, right) in [
            (0, vec![Some(1), Some(2)], true),
            (1, vec![Some(1), Some(2)], true),
            (2, vec![Some(2), Some(2)], true),
            (2, vec![Some(2), Some(1)], false),
            (2, vec![Some(2), None], true),
        ] {
            let members = knows.iter().map(|knows| ("server", *knows));
            assert_eq!(check(level, members).is_ok(), right, "{level} {knows:?}");
        }
    }
}

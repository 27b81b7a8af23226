//! `reckon simulate`: what it says at its end, and that who runs it in a script sees a failure.

use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    let reckon = env!("CARGO_BIN_EXE_reckon");
    let mut command = Command::new(reckon);
    command.arg("simulate").args(arguments).output().unwrap()
}

#[test]
fn seeds_that_hold_are_counted() {
    let output = simulate(&["--seeds", "1..2", "--steps", "20"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("2 seeds held: "), "{said}");
    assert!(
        last.contains(" virtual hours, ") && last.contains(" messages lost"),
        "{said}"
    );
}

#[test]
fn a_seed_that_fails_is_an_error_that_says_how_to_see_it_again() {
    let bug = ["--steps", "40", "--planted", "SkippedRevision"];
    let output = simulate(&[&["--seeds", "1..9"][..], &bug].concat());
    let why = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let again = "reckon simulate --seed 1 --steps 1 --planted SkippedRevision";
    assert!(why.contains("time goes on") && why.contains(again), "{why}");
    // As it says.
    let arguments: Vec<_> = again.split(' ').skip(2).collect();
    let output = simulate(&arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("time goes on"));
}

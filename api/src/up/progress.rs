//! What `reckon up` says while it works: a spinner on a terminal, plain lines anywhere else. Always on standard error, but for `ready:`.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

pub struct Progress {
    spinner: Option<ProgressBar>,
}

impl Progress {
    pub fn new() -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            spinner.set_style(
                ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
                    .unwrap_or(ProgressStyle::default_spinner()),
            );
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        Self { spinner }
    }

    /// What is being waited for.
    pub fn doing(&self, what: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(what.to_string()),
            None => eprintln!("{what}"),
        }
    }

    /// What has happened.
    pub fn done(&self, what: &str) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| eprintln!("{what}")),
            None => eprintln!("{what}"),
        }
    }

    /// Nothing is waited for any more.
    pub fn rest(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}

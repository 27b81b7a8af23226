//! Threads that are none: a job runs where it is handed over, at once.

use seams::{Job, Runtime, Worker, WorkerError};

#[derive(Clone, Copy, Debug, Default)]
pub struct InlineRuntime;

struct Inline;

impl Runtime for InlineRuntime {
    fn worker(&self, _name: &str) -> Result<Box<dyn Worker>, WorkerError> {
        Ok(Box::new(Inline))
    }
}

impl Worker for Inline {
    fn submit(&self, job: Job) -> Result<(), WorkerError> {
        job();
        Ok(())
    }
}

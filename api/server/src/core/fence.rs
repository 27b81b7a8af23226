//! A server that knows that it is not what the others are serves nobody: not a read, not a write, and it does not lead.
//!
//! It lasts: a restart finds the same wrong state on the disk, so why is written beside it, and goes only with the directory. The log
//! stays as good as anybody's, for what differs is what was made of it: such a server goes on voting and storing entries, so
//! that the others do not lose their majority over it.

use super::Core;
use seams::Directory;
use std::sync::Arc;
use tokio::sync::watch;

/// The small file that says why.
const FILE: &str = "fenced";

#[derive(Clone)]
pub(crate) struct Fence(watch::Sender<Option<Arc<str>>>);

impl Fence {
    /// As it stood before the server was started.
    pub fn read(directory: &dyn Directory) -> Result<Self, seams::DiskError> {
        let why = directory.read_file(FILE)?;
        let why = why.map(|why| String::from_utf8_lossy(&why).into());
        Ok(Self(watch::Sender::new(why)))
    }

    pub fn why(&self) -> Option<Arc<str>> {
        self.0.borrow().clone()
    }

    /// Resolves once this server serves nobody any more.
    pub async fn stands(&self) {
        // The sender is here.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }
}

impl Core {
    /// Why this server serves nobody, if it does not.
    pub fn fenced(&self) -> Option<Arc<str>> {
        self.0.fence.why()
    }

    /// What differs between the servers' histories with no majority to say who is right, if anything does.
    pub fn diverges(&self) -> Option<String> {
        self.comparisons().read().unclear
    }

    pub(crate) fn fence(&self) -> &Fence {
        &self.0.fence
    }

    /// From now on this server serves nobody, and does not lead.
    pub(crate) fn raise_fence(&self, why: String) {
        tracing::error!(why, "this server is fenced: it serves nobody any more");
        if let Err(error) = self.0.seams.directory.write_file(FILE, why.as_bytes()) {
            tracing::error!(%error, "the fence will not outlive this process, and then be found again");
        }
        self.0.fence.0.send_replace(Some(why.into()));
        self.node().stand_aside();
    }
}

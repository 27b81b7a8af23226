//! A disk and a network that count what of a snapshot is between them: read and not yet taken by who receives it.
//!
//! For one test: what it counts is the process's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use seams::{
    ByteStream, Directory, Disk, DiskError, DiskOptions, FileInfo, Handler, Network, NetworkError,
    Peer, Room,
};
use tokio::sync::Semaphore;

static READ: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);
static MOST: AtomicU64 = AtomicU64::new(0);
/// How many large chunks the receiver is going to take.
pub static MAY_TAKE: Semaphore = Semaphore::const_new(0);
const LARGE: usize = 100 << 10;

/// Bytes read so far.
pub fn read() -> u64 {
    READ.load(SeqCst)
}

/// Bytes read and not taken.
pub fn held() -> u64 {
    READ.load(SeqCst) - TAKEN.load(SeqCst)
}

/// The most that was ever held.
pub fn most_held() -> u64 {
    MOST.load(SeqCst)
}

pub fn disk(inner: Arc<dyn Directory>) -> Arc<dyn Directory> {
    Arc::new(CountedDirectory(inner))
}

pub fn network(inner: Arc<dyn Network>) -> Arc<dyn Network> {
    Arc::new(CountedNetwork(inner))
}

struct CountedDirectory(Arc<dyn Directory>);

impl Directory for CountedDirectory {
    fn open(&self, name: &str, options: &DiskOptions) -> Result<Arc<dyn Disk>, DiskError> {
        self.0.open(name, options)
    }
    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        self.0.exists(name)
    }
    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.0.remove(name)
    }
    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.0.list()
    }
    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        self.0.read_file(name)
    }
    fn write_file(&self, name: &str, content: &[u8]) -> Result<(), DiskError> {
        self.0.write_file(name, content)
    }
    fn room(&self) -> Result<Room, DiskError> {
        self.0.room()
    }
    fn files(&self, name: &str) -> Result<Vec<FileInfo>, DiskError> {
        self.0.files(name)
    }
    fn read_at(&self, name: &str, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        let content = self.0.read_at(name, file, offset, len)?;
        let read = READ.fetch_add(content.len() as u64, SeqCst) + content.len() as u64;
        MOST.fetch_max(read - TAKEN.load(SeqCst), SeqCst);
        Ok(content)
    }
    fn verify(&self, name: &str) -> Result<(), DiskError> {
        self.0.verify(name)
    }
    fn append_at(
        &self,
        name: &str,
        file: &str,
        offset: u64,
        content: &[u8],
    ) -> Result<(), DiskError> {
        self.0.append_at(name, file, offset, content)?;
        TAKEN.fetch_add(content.len() as u64, SeqCst);
        Ok(())
    }
    fn sync(&self, name: &str) -> Result<(), DiskError> {
        self.0.sync(name)
    }
}

struct CountedNetwork(Arc<dyn Network>);

#[async_trait]
impl Network for CountedNetwork {
    async fn call(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, NetworkError> {
        if method == "raft.snapshot-chunk" && body.len() > LARGE {
            MAY_TAKE.acquire().await.unwrap().forget();
        }
        self.0.call(to, method, body, deadline).await
    }

    async fn stream(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<ByteStream, NetworkError> {
        self.0.stream(to, method, body, deadline).await
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        self.0.serve(handler);
    }
}

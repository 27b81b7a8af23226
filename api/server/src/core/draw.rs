//! What a server draws by chance: ids, salts, the ends of generated names. All from the entropy seam, so that a seed repeats it.

use eventstore::Salt;
use seams::Entropy;
use std::sync::Arc;
use uuid::Uuid;

/// What Kubernetes makes generated names of: no vowels, so that no words come out.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LEN: usize = 5;

#[derive(Clone)]
pub struct Draw(Arc<dyn Entropy>);

impl Draw {
    pub fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self(entropy)
    }

    /// Random (RFC 9562 version 4).
    pub fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.0.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Random behind the time (RFC 9562 version 7): what comes one after another lies side by side where it is kept in order.
    pub fn uuid_at(&self, now_ms: u64) -> Uuid {
        let mut bytes = [0; 10];
        self.0.fill(&mut bytes);
        uuid::Builder::from_unix_timestamp_millis(now_ms, &bytes).into_uuid()
    }

    pub fn salt(&self) -> Salt {
        let mut bytes = [0; 16];
        self.0.fill(&mut bytes);
        Salt(bytes)
    }

    /// Five characters for `generateName`.
    pub fn suffix(&self) -> String {
        (0..SUFFIX_LEN)
            .map(|_| char::from(SUFFIX_LETTERS[self.below(SUFFIX_LETTERS.len() as u64) as usize]))
            .collect()
    }

    /// A number below `end`; its bias is below 2^-32 for what is drawn here.
    pub fn below(&self, end: u64) -> u64 {
        self.0.next_u64() % end.max(1)
    }
}

//! A network inside one process, for tests: calls go straight to the other server's handler.
//!
//! It can cut a server off and delay calls, no more; the simulation has its own, with faults drawn from a seed.

#![allow(
    clippy::expect_used,
    reason = "the lock is held for a look-up only, which can't panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::network::{ByteStream, Handler, Network, NetworkError, Peer, PeerIdentity, RefusalCode};

/// What all the servers of one test are plugged into.
#[derive(Clone, Default)]
pub struct MemoryHub {
    state: Arc<Mutex<Wiring>>,
}

#[derive(Default)]
struct Wiring {
    handlers: BTreeMap<String, Arc<dyn Handler>>,
    cut: BTreeSet<String>,
    delay: Duration,
}

impl MemoryHub {
    /// The network as the server of this name sees it.
    pub fn plug(&self, name: &str) -> Arc<MemoryNetwork> {
        Arc::new(MemoryNetwork {
            hub: self.clone(),
            name: name.to_owned(),
        })
    }

    /// Cuts a server off from all others, or lets it back.
    pub fn cut(&self, name: &str, cut: bool) {
        let mut wiring = self.state.lock().expect("held for a look-up only");
        if cut {
            wiring.cut.insert(name.to_owned());
        } else {
            wiring.cut.remove(name);
        }
    }

    /// Takes a server's handler away, as its death does.
    pub fn unplug(&self, name: &str) {
        self.state
            .lock()
            .expect("held for a look-up only")
            .handlers
            .remove(name);
    }

    /// How long each message takes, either way.
    pub fn delay(&self, delay: Duration) {
        self.state.lock().expect("held for a look-up only").delay = delay;
    }
}

/// One server's plug.
pub struct MemoryNetwork {
    hub: MemoryHub,
    name: String,
}

impl MemoryNetwork {
    fn find(&self, to: &Peer) -> Result<(Arc<dyn Handler>, Duration), NetworkError> {
        let wiring = self.hub.state.lock().expect("held for a look-up only");
        let gone = |reason: &str| NetworkError::Unreachable {
            peer: to.to_string(),
            reason: reason.to_owned(),
        };
        if wiring.cut.contains(&self.name) || wiring.cut.contains(&to.name) {
            return Err(gone("cut"));
        }
        let handler = wiring
            .handlers
            .get(&to.name)
            .cloned()
            .ok_or_else(|| gone("not there"))?;
        Ok((handler, wiring.delay))
    }

    fn identity(&self) -> PeerIdentity {
        PeerIdentity {
            name: self.name.clone(),
        }
    }
}

#[async_trait]
impl Network for MemoryNetwork {
    async fn call(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, NetworkError> {
        let answer = async {
            let (handler, delay) = self.find(to)?;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let answer = handler.call(&self.identity(), method, body).await;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            // A cut loses the answers under way too.
            self.find(to)?;
            answer.map_err(|refusal| refused(to, refusal.code, refusal.message))
        };
        match tokio::time::timeout(deadline, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(NetworkError::TimedOut {
                peer: to.to_string(),
                after: deadline,
            }),
        }
    }

    async fn stream(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<ByteStream, NetworkError> {
        let (handler, _) = self.find(to)?;
        match tokio::time::timeout(deadline, handler.stream(&self.identity(), method, body)).await {
            Ok(stream) => stream.map_err(|refusal| refused(to, refusal.code, refusal.message)),
            Err(_) => Err(NetworkError::TimedOut {
                peer: to.to_string(),
                after: deadline,
            }),
        }
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        self.hub
            .state
            .lock()
            .expect("held for a look-up only")
            .handlers
            .insert(self.name.clone(), handler);
    }
}

fn refused(to: &Peer, code: RefusalCode, message: String) -> NetworkError {
    NetworkError::Refused {
        peer: to.to_string(),
        code,
        message,
    }
}

//! What only the leader knows of the members, asked for from any server; and the one act on them that is no change of the log: handing
//! over leadership.

use super::{Core, Unavailable};
use bytes::Bytes;
use eventstore::{decode, encode};
use raft::{NodeId, Standing, TransferError};
use seams::{NetworkError, Refusal, RefusalCode};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The peers' methods.
pub(crate) const METHOD_STANDING: &str = "members.standing";
pub(crate) const METHOD_HAND_OVER: &str = "members.hand-over";

/// Between two tries to find a leader.
const RETRY: Duration = Duration::from_millis(100);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Raft itself waits 3 s for the other to take over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an act on the members waits for a leader.
const LEADER_WAIT: Duration = Duration::from_secs(10);

impl Core {
    /// How the members stand, from whoever leads.
    pub(crate) async fn standing(&self, deadline: Instant) -> Result<Standing, Unavailable> {
        let deadline = deadline.min(Instant::now() + LEADER_WAIT);
        loop {
            if let Some(standing) = self.node().standing() {
                return Ok(standing);
            }
            let status = self.node().status();
            if let Some(leader) = status.leader.filter(|leader| leader.id != status.id) {
                let asked = self
                    .node()
                    .call(&leader, METHOD_STANDING, Bytes::new(), ASK_TIMEOUT)
                    .await;
                if let Some(standing) = asked.ok().and_then(|bytes| decode(&bytes).ok()) {
                    return Ok(standing);
                }
            }
            let next = Instant::now() + RETRY;
            if next > deadline {
                return Err(Unavailable(
                    "no leader could be reached: a majority of the servers has to be up; where it is lost for good, see \
                     'reckon server --help' about --recover-from-disk"
                        .to_owned(),
                ));
            }
            sleep_until(next).await;
        }
    }

    /// Has `from`, if it still leads, hand leadership to this member, or to whichever is furthest.
    pub(crate) async fn hand_over(
        &self,
        from: NodeId,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> Result<(), String> {
        let status = self.node().status();
        if from == status.id {
            return self.let_lead(to).await.map_err(|error| error.to_string());
        }
        let Some(leader) = status.leader.filter(|leader| leader.id == from) else {
            return Err(
                "the leader has changed meanwhile: look again with 'reckon member list'".to_owned(),
            );
        };
        let limit = HAND_OVER_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()));
        let asked = self
            .node()
            .call(&leader, METHOD_HAND_OVER, encode(&to).into(), limit)
            .await;
        match asked {
            Ok(_) => Ok(()),
            Err(NetworkError::Refused { message, .. }) => Err(message),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn let_lead(&self, to: Option<NodeId>) -> Result<(), TransferError> {
        self.node().transfer_leadership(to).await.map(drop)
    }

    /// The leader's side of both.
    pub(crate) async fn asked_about_members(
        &self,
        method: &str,
        body: &[u8],
    ) -> Result<Bytes, Refusal> {
        let unavailable = |why: String| Refusal::new(RefusalCode::Unavailable, why);
        if method == METHOD_STANDING {
            let standing = self.node().standing();
            let standing =
                standing.ok_or_else(|| unavailable("this server does not lead".to_owned()))?;
            return Ok(encode(&standing).into());
        }
        let to: Option<NodeId> =
            decode(body).map_err(|error| Refusal::new(RefusalCode::Invalid, error.to_string()))?;
        self.let_lead(to)
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        Ok(Bytes::new())
    }
}

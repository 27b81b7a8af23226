//! Addresses and ports that only one object may hold: claims, hidden keys made in the same proposal as what holds them.
//!
//! What an object needs is its kind's to say (`Hooks::wants`); which one it gets is drawn here from what this view shows as free, and the log
//! rejects the proposal if somebody was quicker. An object that is removed by somebody who knows nothing of claims leaves them behind: a
//! claim whose owner does not hold it any more counts as free, and is taken over at its revision.

use super::Call;
use super::create::key_value;
use super::write;
use eventstore::{Body, Change, Expectation, Expected, Key, Object, View, What};
use kinds::error::{FieldError, StatusError};
use kinds::kind::{Claim, Kind, Want};
use kinds::resources::core::service::{
    address_refused, address_taken, port_out_of_range, port_taken,
};
use serde_json::{Map, Value};
use std::net::{IpAddr, Ipv4Addr};

const ADDRESSES: &str = "~clusterips";
const PORTS: &str = "~nodeports";
const PORT_MIN: u16 = 30_000;
const PORT_MAX: u16 = 32_767;
/// The first port that a dry run shows where it would give one: none that is ever given (Kubernetes: the same).
const PORT_SHOWN: u16 = 32_769;
/// Draws before the range is walked from one end.
const DRAWS: usize = 32;
/// The beginning of a large range is left to those who name their address (Kubernetes: the same).
const NAMED_BAND: u64 = 256;

/// Claims to make and to give back.
#[derive(Default)]
pub(crate) struct Allocation {
    expectations: Vec<Expectation>,
    changes: Vec<Change>,
}

impl Allocation {
    pub fn join(self, expectations: &mut Vec<Expectation>, changes: &mut Vec<Change>) {
        expectations.extend(self.expectations);
        changes.extend(self.changes);
    }
}

/// Gives an object what it wants, and claims what it holds and `old` did not; releases what only `old` held.
pub(crate) fn allocate(
    call: &Call,
    view: &View,
    kind: &Kind,
    owner: &Key,
    old: Option<&Value>,
    new: &mut Value,
    dry_run: bool,
) -> Result<Allocation, StatusError> {
    let range = Range::parse(&call.api.settings().service_cidr)?;
    let held = old.map(|old| (kind.hooks.claims)(old)).unwrap_or_default();
    let mut grants = Vec::new();
    for want in (kind.hooks.wants)(new, &[false]) {
        let granted = match &want {
            Want::ServiceAddress { ipv6: true, .. } => Err(FieldError::invalid(
                "spec.ipFamilies[0]",
                "IPv6",
                "not configured on this cluster",
            )),
            Want::ServiceAddress {
                path,
                fixed: Some(IpAddr::V4(address)),
                ..
            } => {
                let claim = Claim::ServiceAddress((*address).into());
                if !range.holds(*address) {
                    Err(address_refused(
                        new,
                        path,
                        (*address).into(),
                        &call.api.settings().service_cidr,
                    ))
                } else if free(view, kind, owner, &held, &claim) {
                    Ok(claim)
                } else {
                    Err(address_taken(new, path, (*address).into()))
                }
            }
            Want::ServiceAddress { .. } => {
                let draw = |end| call.core().draw().below(end);
                let found = pick(range.dynamic(), draw, |offset| {
                    let claim = Claim::ServiceAddress(range.at(offset).into());
                    (!grants.contains(&claim) && free(view, kind, owner, &held, &claim))
                        .then_some(claim)
                });
                Ok(found.ok_or_else(|| {
                    StatusError::internal("failed to allocate a serviceIP: range is full")
                })?)
            }
            Want::NodePort {
                path,
                fixed: Some(port),
            } => {
                let claim = Claim::NodePort(*port);
                if !(PORT_MIN..=PORT_MAX).contains(port) {
                    Err(port_out_of_range(
                        path,
                        *port,
                        &format!("{PORT_MIN}-{PORT_MAX}"),
                    ))
                } else if free(view, kind, owner, &held, &claim) {
                    Ok(claim)
                } else {
                    Err(port_taken(path, *port))
                }
            }
            Want::NodePort { .. } if dry_run => Ok(Claim::NodePort(port_shown(&grants))),
            Want::NodePort { .. } => {
                let draw = |end| call.core().draw().below(end);
                let found = pick(0..u64::from(PORT_MAX - PORT_MIN) + 1, draw, |offset| {
                    let claim = Claim::NodePort(PORT_MIN + offset as u16);
                    (!grants.contains(&claim) && free(view, kind, owner, &held, &claim))
                        .then_some(claim)
                });
                Ok(found.ok_or_else(|| {
                    StatusError::internal("failed to allocate a nodePort: range is full")
                })?)
            }
        };
        grants.push(
            granted.map_err(|error| {
                StatusError::invalid(kind.group, kind.kind, &owner.name, &[error])
            })?,
        );
    }
    if !grants.is_empty() {
        (kind.hooks.grant)(new, &grants);
    }
    let holds = (kind.hooks.claims)(new);
    let mut allocation = release(
        view,
        owner,
        held.iter().filter(|claim| !holds.contains(claim)),
    );
    for claim in holds.iter().filter(|claim| !held.contains(claim)) {
        allocation.claim(view, owner, claim);
    }
    Ok(allocation)
}

/// A port above those that this request was given already.
fn port_shown(grants: &[Claim]) -> u16 {
    let ports = grants.iter().filter_map(|claim| match claim {
        Claim::NodePort(port) => Some(port.saturating_add(1)),
        Claim::ServiceAddress(_) => None,
    });
    ports.max().unwrap_or(PORT_SHOWN)
}

/// The first address of the range, which is the API's own service's. None: somebody else holds it.
pub(crate) fn allocate_first(
    view: &View,
    kind: &Kind,
    owner: &Key,
    service_cidr: &str,
) -> Result<Option<(IpAddr, Allocation)>, StatusError> {
    let address = IpAddr::from(Range::parse(service_cidr)?.at(1));
    let claim = Claim::ServiceAddress(address);
    if !free(view, kind, owner, &[], &claim) {
        return Ok(None);
    }
    let mut allocation = Allocation::default();
    allocation.claim(view, owner, &claim);
    Ok(Some((address, allocation)))
}

/// For an object that goes.
pub(crate) fn release_all(view: &View, kind: &Kind, owner: &Key, old: &Value) -> Allocation {
    release(view, owner, (kind.hooks.claims)(old).iter())
}

fn release<'a>(view: &View, owner: &Key, claims: impl Iterator<Item = &'a Claim>) -> Allocation {
    let mut allocation = Allocation::default();
    for key in claims.map(key_of) {
        // A claim that has been taken over meanwhile is not ours to give back.
        if let Some(claimed) = view
            .get(&key)
            .filter(|claimed| owner_of(claimed).as_ref() == Some(owner))
        {
            allocation.expectations.push(write::expect(
                key.clone(),
                Expected::Revision(claimed.revision()),
            ));
            allocation.changes.push(Change {
                key,
                what: What::Remove,
            });
        }
    }
    allocation
}

impl Allocation {
    fn claim(&mut self, view: &View, owner: &Key, claim: &Claim) {
        let key = key_of(claim);
        let expected = match view.get(&key) {
            Some(stale) => Expected::Revision(stale.revision()),
            None => Expected::Absent,
        };
        let mut fields = Map::new();
        fields.insert("owner".into(), key_value(owner));
        let body = Body::of_claim(&key.name, &fields);
        self.expectations.push(write::expect(key.clone(), expected));
        self.changes.push(Change {
            key,
            what: What::Put {
                body,
                delete_grace_s: None,
            },
        });
    }
}

fn key_of(claim: &Claim) -> Key {
    match claim {
        Claim::ServiceAddress(address) => Key::new(ADDRESSES, "", address.to_string()),
        Claim::NodePort(port) => Key::new(PORTS, "", port.to_string()),
    }
}

/// Nobody holds it, or the one it is for does.
fn free(view: &View, kind: &Kind, owner: &Key, held: &[Claim], claim: &Claim) -> bool {
    if held.contains(claim) {
        return true;
    }
    let Some(claimed) = view.get(&key_of(claim)) else {
        return true;
    };
    let Some(holder) = owner_of(claimed) else {
        return true;
    };
    if holder == *owner {
        return true;
    }
    let Some(object) = view.get(&holder) else {
        return true;
    };
    !(kind.hooks.claims)(&object.to_value()).contains(claim)
}

fn owner_of(claimed: &Object) -> Option<Key> {
    let value = claimed.to_value();
    let field = |name: &str| value["owner"][name].as_str().map(str::to_owned);
    Some(Key::new(
        field("resource")?,
        field("namespace")?,
        field("name")?,
    ))
}

/// One out of a range: drawn, and after too many draws the first from a drawn start on.
fn pick<T>(
    range: std::ops::Range<u64>,
    draw: impl Fn(u64) -> u64,
    try_one: impl Fn(u64) -> Option<T>,
) -> Option<T> {
    let len = range.end.saturating_sub(range.start);
    if len == 0 {
        return None;
    }
    let drawn = (0..DRAWS).find_map(|_| try_one(range.start + draw(len)));
    drawn.or_else(|| {
        let first = draw(len);
        (0..len).find_map(|step| try_one(range.start + (first + step) % len))
    })
}

/// An IPv4 range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    network: u32,
    bits: u32,
}

impl Range {
    fn parse(cidr: &str) -> Result<Self, StatusError> {
        let read = || {
            let (address, bits) = cidr.split_once('/')?;
            let (address, bits): (Ipv4Addr, u32) = (address.parse().ok()?, bits.parse().ok()?);
            (8..=30).contains(&bits).then(|| Self {
                network: u32::from(address) & (u32::MAX << (32 - bits)),
                bits,
            })
        };
        read().ok_or_else(|| {
            StatusError::internal(&format!(
                "the service range {cidr:?} is no IPv4 range between /8 and /30"
            ))
        })
    }

    fn size(self) -> u64 {
        1 << (32 - self.bits)
    }

    /// The network's own address, its first (the API's service) and its last are nobody's.
    fn holds(self, address: Ipv4Addr) -> bool {
        let offset = u64::from(u32::from(address).wrapping_sub(self.network));
        (1..self.size() - 1).contains(&offset)
    }

    /// Offsets of what may be drawn.
    fn dynamic(self) -> std::ops::Range<u64> {
        let first = if self.size() >= 4 * NAMED_BAND {
            NAMED_BAND
        } else {
            2
        };
        first..self.size() - 1
    }

    fn at(self, offset: u64) -> Ipv4Addr {
        Ipv4Addr::from(self.network + offset as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_may_be_given() {
        let range = Range::parse("10.96.0.0/16").unwrap();
        let rows = [
            ("10.96.0.0", false),
            ("10.96.0.1", true),
            ("10.96.255.254", true),
            ("10.96.255.255", false),
            ("10.97.0.0", false),
            ("10.95.255.255", false),
        ];
        for (address, holds) in rows {
            assert_eq!(range.holds(address.parse().unwrap()), holds, "{address}");
        }
        assert_eq!(
            (range.dynamic(), range.at(256).to_string()),
            (256..65_535, "10.96.1.0".to_owned())
        );
        assert_eq!(Range::parse("10.0.0.0/28").unwrap().dynamic(), 2..15);
        for bad in ["", "10.0.0.0", "10.0.0.0/31", "fd00::/108", "x/16"] {
            assert_eq!(
                Range::parse(bad).map_err(|error| error.code),
                Err(500),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_dry_run_shows_ports_that_nobody_has() {
        let port = Claim::NodePort;
        let address = Claim::ServiceAddress([10, 96, 1, 1].into());
        let rows = [
            (vec![], 32_769),
            (vec![address.clone()], 32_769),
            (vec![address, port(32_769)], 32_770),
            (vec![port(30_000)], 30_001),
        ];
        for (grants, expected) in rows {
            assert_eq!(port_shown(&grants), expected, "{grants:?}");
        }
    }

    #[test]
    fn a_full_range_is_walked_to_its_last_free_place() {
        let rows = [(0..10, Some(7)), (0..7, None), (5..5, None)];
        for (range, expected) in rows {
            assert_eq!(
                pick(
                    range,
                    |end| 3 % end,
                    |offset| (offset == 7).then_some(offset)
                ),
                expected
            );
        }
    }
}

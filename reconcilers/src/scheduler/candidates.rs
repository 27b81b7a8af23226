//! The round's picture of all nodes: what each offers, what is asked of it, and what this round has placed there.
//!
//! Made once a round, on its first pod; a thousand nodes cost a thousand small copies. What depends on a pod's template alone (taints,
//! selectors, preferences) is worked out once for all pods of an owner that ask for the same.

use super::filter::{self, Filtered};
use super::score;
use crate::World;
use crate::world::{
    Kind, Node, NodeTerm, NodeUse, Pod, PreferredTerm, Thing, Toleration, resource, weight_of,
};
use eventstore::Text;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

#[derive(Debug, Default)]
pub struct Candidates {
    /// In the order of names.
    pub nodes: Vec<Candidate>,
    /// By owner: what was worked out for its pods last.
    asked: BTreeMap<Uuid, Asked>,
}

#[derive(Debug)]
pub struct Candidate {
    pub name: Text,
    pub revision: u64,
    pub thing: Arc<Thing>,
    /// cpu, memory, pods: offered and asked for. Kept apart from the rest, for every pod is compared with them.
    pub offered: [i64; 3],
    pub asked: [i64; 3],
    pub used: NodeUse,
    /// Tells nodes of equal score apart, mixed with the pod's uid.
    seed: u64,
}

/// The parts of a pod that the filters and scores of a template read.
#[derive(Debug, PartialEq)]
struct Template {
    node_selector: BTreeMap<Text, Text>,
    required: Option<Vec<NodeTerm>>,
    preferred: Vec<PreferredTerm>,
    tolerations: Vec<Toleration>,
}

#[derive(Debug)]
struct Asked {
    template: Template,
    /// For each node: why a pod of this template can't go there, or its score for going there.
    of_nodes: Arc<Vec<Filtered>>,
}

/// The resources in `offered` and `asked`.
pub const FAST: [&str; 3] = ["cpu", "memory", "pods"];

impl Candidates {
    pub fn read(world: &World) -> Self {
        let nodes = world
            .list(resource::NODES, None)
            .filter_map(|thing| match &thing.kind {
                Kind::Node(node) if thing.object.living() => {
                    Some(Candidate::read(world, thing, node))
                }
                _ => None,
            });
        Self {
            nodes: nodes.collect(),
            asked: BTreeMap::new(),
        }
    }

    /// The index of the best node and how many fit, or how many nodes each reason rules out.
    pub fn choose(
        &mut self,
        thing: &Thing,
        pod: &Pod,
    ) -> Result<(usize, usize), BTreeMap<String, usize>> {
        let of_template = self.of_template(thing, pod);
        let asked = FAST.map(|name| pod.requests.get(name));
        let others = pod
            .requests
            .0
            .iter()
            .any(|(name, _)| !FAST.contains(&&**name));
        let mut reasons = BTreeMap::new();
        let mut fitting: Vec<(usize, i64)> = Vec::new();
        for (index, candidate) in self.nodes.iter().enumerate() {
            match &of_template[index] {
                Filtered::Out(reason) => *reasons.entry(reason.clone()).or_insert(0) += 1,
                Filtered::In { preference } => {
                    if candidate.fits(pod, &asked, others) {
                        fitting.push((index, *preference));
                    } else {
                        filter::explain(candidate, pod, &mut reasons);
                    }
                }
            }
        }
        score::best(&self.nodes, &fitting, thing, pod)
            .map(|best| (best, fitting.len()))
            .ok_or(reasons)
    }

    /// Counts a pod that this round binds.
    pub fn place(&mut self, index: usize, thing: &Thing, pod: &Pod) {
        let candidate = &mut self.nodes[index];
        candidate.used.add(thing, pod);
        for (asked, name) in candidate.asked.iter_mut().zip(FAST) {
            *asked = asked.saturating_add(pod.requests.get(name));
        }
    }

    fn of_template(&mut self, thing: &Thing, pod: &Pod) -> Arc<Vec<Filtered>> {
        let template = Template {
            node_selector: pod.node_selector.clone(),
            required: pod.required_terms.clone(),
            preferred: pod.preferred_terms.clone(),
            tolerations: pod.tolerations.clone(),
        };
        let owner = thing.meta.controller().map(|owner| owner.uid);
        if let Some(known) = owner
            .and_then(|owner| self.asked.get(&owner))
            .filter(|known| known.template == template)
        {
            return known.of_nodes.clone();
        }
        let of_nodes: Arc<Vec<Filtered>> = Arc::new(
            self.nodes
                .iter()
                .map(|candidate| filter::by_template(candidate, pod))
                .collect(),
        );
        if let Some(owner) = owner {
            self.asked.insert(
                owner,
                Asked {
                    template,
                    of_nodes: of_nodes.clone(),
                },
            );
        }
        of_nodes
    }
}

impl Candidate {
    fn read(world: &World, thing: &Arc<Thing>, node: &Node) -> Self {
        let name = thing.object.key.name.clone();
        let used = world.node_use(&name).cloned().unwrap_or_default();
        Self {
            offered: FAST.map(|resource| node.allocatable.get(resource)),
            asked: FAST.map(|resource| used.requested.get(resource)),
            revision: thing.object.revision(),
            thing: thing.clone(),
            seed: seed(name.as_bytes()),
            used,
            name,
        }
    }

    pub fn node(&self) -> &Node {
        match &self.thing.kind {
            Kind::Node(node) => node,
            _ => unreachable!("a candidate is made of a node"),
        }
    }

    /// Whether what the pod asks for is there, and its host ports are free. `others`: it asks for more than the resources in `FAST`.
    fn fits(&self, pod: &Pod, asked: &[i64; 3], others: bool) -> bool {
        let fast = (0..FAST.len()).all(|index| {
            asked[index] == 0
                || self.asked[index].saturating_add(asked[index]) <= self.offered[index]
        });
        fast && (!others || filter::lacking(self, pod).next().is_none())
            && !filter::ports_taken(self, pod)
    }

    /// For a pod: a number that orders nodes of equal score, another for each pod.
    pub fn tie_break(&self, pod: &Thing) -> u64 {
        mix(self.seed
            ^ pod.object.stamps.uid.as_u64_pair().0.rotate_left(32)
            ^ pod.object.stamps.uid.as_u64_pair().1)
    }

    /// What `why` says of a bind, in brief: `fitting` of `nodes` would have taken the pod.
    pub fn why(&self, pod: &Pod, fitting: usize, nodes: usize) -> String {
        let (cpu, memory) = weight_of(pod);
        let percent = |used: i64, offered: i64| {
            if offered > 0 {
                used.saturating_mul(100) / offered
            } else {
                0
            }
        };
        let cpu = percent(self.used.weighed_cpu + cpu, self.offered[0]);
        let memory = percent(self.used.weighed_memory + memory, self.offered[1]);
        format!(
            "{fitting} of {nodes} nodes fit; {} then has {cpu}% of its cpu and {memory}% of its memory asked for",
            self.name
        )
    }
}

/// FNV-1a: names to numbers, the same on every machine.
fn seed(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of the input.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

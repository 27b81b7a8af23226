//! Event objects go some time after they were last seen, so that they stay few. In etcd's place a lease does this.

use crate::change::{remove, unchanged};
use crate::world::{Kind, resource};
use crate::{Decision, Draft, Reconciler, RoundState, Touched, Wakes, World};
use eventstore::{Intent, Key, Time};

pub const NAME: &str = "event-retention";

#[derive(Debug)]
pub struct EventRetention {
    pub ttl_ms: i64,
}

impl Reconciler for EventRetention {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wakes(&self, touched: &Touched, _: &World, wakes: &mut Wakes) {
        // One that is seen again is looked at when its first time comes, and waits on.
        if let Touched::Object {
            key, before: None, ..
        } = touched
            && &*key.resource == resource::EVENTS
        {
            wakes.wake(key.clone());
        }
    }

    fn keys(&self, world: &World, wakes: &mut Wakes) {
        world
            .list(resource::EVENTS, None)
            .for_each(|thing| wakes.wake(thing.object.key.clone()));
    }

    fn decide(&self, world: &World, key: &Key, _: &mut RoundState, now: Time) -> Decision {
        let Some(thing) = world.thing(key) else {
            return Decision::nothing();
        };
        let Kind::Event(event) = &thing.kind else {
            return Decision::nothing();
        };
        let until = event
            .last_seen
            .unwrap_or(thing.object.stamps.created)
            .max(thing.object.stamps.created)
            .plus_ms(self.ttl_ms);
        if until > now {
            return Decision::nothing().again(until);
        }
        if !thing.meta.finalizers.is_empty() {
            return Decision::nothing();
        }
        let intent = Intent::Remove {
            reason: "it was last seen too long ago".into(),
        };
        Decision::propose(Draft {
            intent,
            expectations: vec![unchanged(thing)],
            changes: vec![remove(key)],
        })
    }
}

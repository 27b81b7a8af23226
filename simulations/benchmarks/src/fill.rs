//! History, made quickly: many clients at once, through the API like anybody.

use crate::api::{Api, MAPS, map, revision_of};
use crate::load::quantile_us;
use crate::report;
use anyhow::Result;
use bytes::Bytes;
use http::Method;
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

/// Clients at once.
const WORKERS: usize = 128;
/// Of a pool from which values are cut: none is made anew for each object.
const TEXT_BYTES: usize = 1 << 20;
/// Names that each worker keeps alive while it makes and removes others.
const ALIVE: usize = 8;
/// One of so many created names is remembered for reading later.
const REMEMBERED: u64 = 64;
const SAY_EVERY: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Text {
    pool: Arc<str>,
    len: usize,
}

impl Text {
    /// Values of so many letters and digits.
    pub fn new(len: usize) -> Self {
        let mut random = StdRng::seed_from_u64(2);
        let pool = Alphanumeric.sample_string(&mut random, TEXT_BYTES + len);
        Self {
            pool: pool.into(),
            len,
        }
    }

    pub fn draw(&self, random: &mut StdRng) -> &str {
        let at = random.random_range(0..TEXT_BYTES);
        &self.pool[at..at + self.len]
    }
}

pub fn name(number: u64) -> String {
    format!("object-{number:08}")
}

/// A name, and a revision at which it lived.
pub type Lived = (String, u64);

/// So many objects, one event each.
pub async fn create(api: &Api, objects: u64, text: &Text) -> Result<()> {
    each(objects, "objects created", |number, mut random| {
        let (api, text) = (api.clone(), text.clone());
        async move {
            let body = map(&name(number), text.draw(&mut random));
            api.ask(number as usize, Method::POST, MAPS, body).await?;
            Ok(())
        }
    })
    .await
}

/// So many updates of objects drawn from the first `objects`, one event each.
pub async fn update(api: &Api, objects: u64, events: u64, text: &Text) -> Result<()> {
    each(events, "updates", |number, mut random| {
        let (api, text) = (api.clone(), text.clone());
        async move {
            let name = name(random.random_range(0..objects));
            let body = map(&name, text.draw(&mut random));
            let path = format!("{MAPS}/{name}");
            api.ask(number as usize, Method::PUT, &path, body).await?;
            Ok(())
        }
    })
    .await
}

/// So many names, each created and, but for the last few, deleted again; some of them, and when they lived.
pub async fn come_and_go(api: &Api, names: u64, text: &Text) -> Result<Vec<Lived>> {
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (api, text, next) = (api.clone(), text.clone(), next.clone());
        workers.spawn(async move {
            let mut random = StdRng::seed_from_u64(worker as u64);
            let (mut alive, mut remembered) = (VecDeque::new(), Vec::new());
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= names {
                    return anyhow::Ok(remembered);
                }
                let name = name(number);
                let body = map(&name, text.draw(&mut random));
                let made = api.ask(worker, Method::POST, MAPS, body).await?;
                if number % REMEMBERED == 0 {
                    remembered.push((name.clone(), revision_of(&made)?));
                }
                alive.push_back(name);
                if alive.len() > ALIVE
                    && let Some(oldest) = alive.pop_front()
                {
                    let path = format!("{MAPS}/{oldest}");
                    api.ask(worker, Method::DELETE, &path, Bytes::new()).await?;
                }
            }
        });
    }
    let mut lived = Vec::new();
    watch(&next, names, "names come and gone", async {
        while let Some(done) = workers.join_next().await {
            lived.extend(done??);
        }
        Ok(())
    })
    .await?;
    Ok(lived)
}

/// Does something so many times, by all workers at once.
async fn each<F>(times: u64, what: &str, act: impl Fn(u64, StdRng) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let done = AtomicU64::new(0);
    let acting = async {
        let mut under_way = JoinSet::new();
        for number in 0..times {
            if under_way.len() >= WORKERS
                && let Some(ended) = under_way.join_next().await
            {
                ended??;
                done.fetch_add(1, Ordering::Relaxed);
            }
            under_way.spawn(act(number, StdRng::seed_from_u64(number)));
        }
        while let Some(ended) = under_way.join_next().await {
            ended??;
        }
        Ok(())
    };
    watch(&done, times, what, acting).await
}

/// Says every now and then how far it is.
async fn watch(
    done: &AtomicU64,
    of: u64,
    what: &str,
    acting: impl Future<Output = Result<()>>,
) -> Result<()> {
    let started = Instant::now();
    let mut acting = std::pin::pin!(acting);
    let mut say = interval(SAY_EVERY);
    say.tick().await;
    loop {
        tokio::select! {
            result = &mut acting => {
                let seconds = started.elapsed().as_secs_f64();
                report::progress(&format!("  {of} {what} in {seconds:.0} s"));
                return result;
            }
            _ = say.tick() => {
                let done = done.load(Ordering::Relaxed).min(of);
                report::progress(&format!("  {done} of {of} {what}"));
            }
        }
    }
}

/// How long each of so many requests took, one after another: p50 and p99 in ms.
pub async fn timed(times: u64, mut ask: impl AsyncFnMut(u64) -> Result<()>) -> Result<(f64, f64)> {
    let mut took_us = Vec::new();
    for number in 0..times {
        let started = Instant::now();
        ask(number).await?;
        took_us.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    took_us.sort_unstable();
    Ok((
        quantile_us(&took_us, 0.5) / 1e3,
        quantile_us(&took_us, 0.99) / 1e3,
    ))
}

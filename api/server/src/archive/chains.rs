//! What an archive has of one cluster: stretches of its history, each of which is loaded by itself.
//!
//! There are several where archiving was broken off for longer than history was kept: the next stretch begins with a new base, and of what
//! was between nothing is left. A moment is of the stretch that provably holds it, or it is refused: it is never answered by another one.

use super::load::read_segment;
use super::{Archive, ArchiveError, BaseFiles, Chain, Contents, Stored};
use eventstore::{Envelope, Time, decode};
use eventstore_disk::backup::{BaseHead, FileError, SegmentHead};
use futures::{StreamExt, TryStreamExt};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use uuid::Uuid;

/// Files whose heads are read at once.
const READS: usize = 16;

/// What is asked for: the end, the event that holds a revision, or the last one stamped at or before a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    End,
    Revision(u64),
    Time(Time),
}

impl Moment {
    pub fn parse(at: Option<&str>) -> Result<Self, ArchiveError> {
        let Some(at) = at else { return Ok(Self::End) };
        let revision = at.parse().ok().map(Self::Revision);
        let moment = revision.or_else(|| Time::parse(at).map(Self::Time));
        moment.ok_or_else(|| {
            ArchiveError::Asked(format!(
                "'{at}' is neither a revision nor a time: say 120, or 2026-01-31T12:00:00Z"
            ))
        })
    }
}

/// All files of one cluster, as they belong together.
#[derive(Clone, Debug)]
pub struct Chains {
    pub cluster: Uuid,
    /// From the oldest on. None is part of another.
    pub all: Vec<Chain>,
    /// Bases inside of a chain, which goes without them.
    pub spare: Vec<BaseFiles>,
    /// Pages of bases whose writer was stopped before the last: of no use, and no loss.
    pub broken_off: Vec<Stored>,
    pub wrong: Vec<Wrong>,
    /// The highest revision that any file tells of, and the latest time.
    pub highest: u64,
    pub latest: Time,
}

/// Files that can't be used as they should: one that is damaged, or several in a row whose predecessor is missing.
#[derive(Clone, Debug)]
pub struct Wrong {
    pub files: Vec<Stored>,
    /// How far they reach, as far as can be known.
    pub last: u64,
    pub why: String,
    /// The file itself is not what was written there.
    pub damaged: bool,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = &self.files[..] else {
            return f.write_str(&self.why);
        };
        write!(f, "{}: {}", first.name, self.why)?;
        match rest.len() {
            0 => Ok(()),
            more => write!(f, "; it and {more} more behind it are of no use"),
        }
    }
}

/// Revisions between two chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub first: u64,
    pub last: u64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revisions {} to {}", self.first, self.last)
    }
}

impl Chains {
    /// Reads the head of every file. What is damaged or missing is in what is returned; an error says that the store can't be read, or has
    /// nothing of that cluster.
    pub async fn of(archive: &Archive, cluster: Uuid) -> Result<Self, ArchiveError> {
        let Contents { bases, segments } = archive.contents(cluster).await?;
        if segments.is_empty() && bases.is_empty() {
            return Err(ArchiveError::Asked(format!(
                "{} has nothing of cluster {cluster}",
                archive.url()
            )));
        }
        let mut chains = Self {
            cluster,
            all: Vec::new(),
            spare: Vec::new(),
            broken_off: Vec::new(),
            wrong: Vec::new(),
            highest: 0,
            latest: Time::default(),
        };
        let segments = chains.segments(archive, segments).await?;
        let bases = chains.bases(archive, bases).await?;
        chains.join(bases, &segments);
        chains.sever(segments);
        Ok(chains)
    }

    async fn segments(
        &mut self,
        archive: &Archive,
        named: BTreeMap<u64, Stored>,
    ) -> Result<Vec<(Stored, SegmentHead)>, ArchiveError> {
        let heads = named.into_iter().map(|(first, file)| async move {
            let head = readable(archive.segment_head(&file).await)?;
            Ok::<_, ArchiveError>((first, file, head))
        });
        let mut heads = futures::stream::iter(heads).buffered(READS);
        let mut segments = Vec::new();
        while let Some((first, file, head)) = heads.try_next().await? {
            let head = match head {
                Ok(head) => head,
                Err(error) => {
                    self.damaged(file, first, error.to_string());
                    continue;
                }
            };
            if head.cluster != self.cluster {
                self.damaged(file, 0, format!("it is of cluster {}", head.cluster));
                continue;
            }
            if head.first == first {
                segments.push((file, head));
            } else {
                let why = format!(
                    "by its name it begins at revision {first}, by its head at {}",
                    head.first
                );
                self.damaged(file, head.last, why);
            }
        }
        let segments = self.checked(archive, segments).await?;
        for (_, head) in &segments {
            self.saw(head.last, head.time);
        }
        Ok(segments)
    }

    /// No checksum was looked at yet: where a row ends or breaks a head may be damaged that says so, and the file is read whole.
    async fn checked(
        &mut self,
        archive: &Archive,
        segments: Vec<(Stored, SegmentHead)>,
    ) -> Result<Vec<(Stored, SegmentHead)>, ArchiveError> {
        let follows = |(before, next): (&SegmentHead, &SegmentHead)| {
            (before.last + 1, before.digest) == (next.first, next.before)
        };
        let heads: Vec<_> = segments.iter().map(|(_, head)| head.clone()).collect();
        let mut sound = Vec::with_capacity(segments.len());
        for (number, (file, head)) in segments.into_iter().enumerate() {
            let before = number.checked_sub(1).and_then(|before| heads.get(before));
            let begins = before.is_none_or(|before| follows((before, &head)));
            let ends = heads.get(number + 1);
            if !begins || !ends.is_some_and(|next| follows((&head, next))) {
                match read_segment(archive, &file).await {
                    Ok(_) => {}
                    Err(ArchiveError::File { error, .. }) => {
                        self.damaged(file, head.first, error.to_string());
                        continue;
                    }
                    Err(other) => return Err(other),
                }
            }
            sound.push((file, head));
        }
        Ok(sound)
    }

    async fn bases(
        &mut self,
        archive: &Archive,
        named: BTreeMap<u64, BTreeMap<u32, Stored>>,
    ) -> Result<Vec<BaseFiles>, ArchiveError> {
        let mut bases = Vec::new();
        for (revision, pages) in named {
            let heads = pages.into_iter().map(|(page, file)| async move {
                let head = readable(archive.base_head(&file).await)?;
                Ok::<_, ArchiveError>((page, file, head))
            });
            let heads = futures::stream::iter(heads).buffered(READS);
            let heads = heads.try_collect().await?;
            bases.extend(self.base(revision, heads));
        }
        Ok(bases)
    }

    /// None: it is not whole.
    fn base(
        &mut self,
        revision: u64,
        named: Vec<(u32, Stored, Result<BaseHead, FileError>)>,
    ) -> Option<BaseFiles> {
        let (mut pages, mut heads, mut damaged) = (Vec::new(), Vec::<BaseHead>::new(), false);
        for (page, file, head) in named {
            let head = match head {
                Ok(head) => head,
                Err(error) => {
                    self.damaged(file, revision, error.to_string());
                    damaged = true;
                    continue;
                }
            };
            let beginning = &head.beginning;
            if beginning.cluster != self.cluster {
                self.damaged(file, 0, format!("it is of cluster {}", beginning.cluster));
                damaged = true;
                continue;
            }
            self.saw(beginning.revision, beginning.clock);
            if (beginning.revision, head.page) != (revision, page) {
                let why = format!(
                    "by its name it is page {page} of revision {revision}, by its head page {} of revision {}",
                    head.page, beginning.revision
                );
                self.damaged(file, beginning.revision, why);
                damaged = true;
                continue;
            }
            pages.push(file);
            heads.push(head);
        }
        let last = heads.last().filter(|_| !damaged);
        let Some(last) = last.cloned() else {
            self.broken_off.extend(pages);
            return None;
        };
        let whole = last.next.is_none();
        let expected = (0..).zip(&heads);
        let missing = expected
            .filter(|(page, head)| *page != head.page)
            .map(|(page, _)| page)
            .next();
        let one_moment = heads
            .iter()
            .all(|head| head.beginning.digest == last.beginning.digest);
        let why = match missing {
            Some(page) => format!("page {page} of the base is missing before it"),
            None if !one_moment => "the pages of the base are not of one moment".to_owned(),
            None if whole => match decode::<Envelope>(&last.event) {
                Ok(event) if event.last == revision => {
                    return Some(BaseFiles {
                        without: heads.into_iter().flat_map(|head| head.without).collect(),
                        first: event.first,
                        pages,
                        head: last,
                    });
                }
                Ok(_) | Err(_) => format!("the event in its head is not that of {revision}"),
            },
            None => {
                self.broken_off.extend(pages);
                return None;
            }
        };
        let file = pages.pop().into_iter().collect();
        self.broken_off.extend(pages);
        self.wrong.push(Wrong {
            files: file,
            last: revision,
            why,
            damaged: false,
        });
        None
    }

    fn join(&mut self, bases: Vec<BaseFiles>, segments: &[(Stored, SegmentHead)]) {
        let starts = std::iter::once(None).chain(bases.into_iter().map(Some));
        for base in starts {
            let chain = Chain::from(self.cluster, base, segments);
            if chain.base.is_none() && chain.segments.is_empty() {
                continue;
            }
            let held =
                |other: &Chain| (other.last(), other.digest()) == (chain.last(), chain.digest());
            if self.all.iter().any(held) {
                self.spare.extend(chain.base);
            } else {
                self.all.push(chain);
            }
        }
    }

    /// Segments that no chain has: each run of them.
    fn sever(&mut self, segments: Vec<(Stored, SegmentHead)>) {
        let chains = self.all.iter().flat_map(|chain| &chain.segments);
        let used: BTreeSet<u64> = chains.map(|(_, head)| head.first).collect();
        let mut before: Option<SegmentHead> = None;
        for (file, head) in segments {
            if used.contains(&head.first) {
                continue;
            }
            let follows = |before: &SegmentHead| {
                (before.last + 1, before.digest) == (head.first, head.before)
            };
            match self.wrong.last_mut() {
                Some(run) if before.as_ref().is_some_and(follows) => {
                    run.files.push(file);
                    run.last = head.last;
                }
                _ => {
                    let ends = self.all.iter().map(Chain::last);
                    let ends = ends.chain(before.as_ref().map(|before| before.last));
                    let after = ends.filter(|end| *end < head.first).max().unwrap_or(0);
                    let why = if after + 1 < head.first {
                        let missing = (after + 1, head.first - 1);
                        format!(
                            "events {} to {} are missing before it",
                            missing.0, missing.1
                        )
                    } else {
                        "it does not follow from the events before: their digests differ".to_owned()
                    };
                    self.wrong.push(Wrong {
                        files: vec![file],
                        last: head.last,
                        why,
                        damaged: false,
                    });
                }
            }
            before = Some(head);
        }
    }

    fn damaged(&mut self, file: Stored, last: u64, why: String) {
        self.highest = self.highest.max(last);
        self.wrong.push(Wrong {
            files: vec![file],
            last,
            why,
            damaged: true,
        });
    }

    fn saw(&mut self, revision: u64, time: Time) {
        self.highest = self.highest.max(revision);
        self.latest = self.latest.max(time);
    }

    /// What is missing between the chains.
    pub fn gaps(&self) -> Vec<Gap> {
        let pairs = self.all.iter().zip(self.all.iter().skip(1));
        let gap = |(before, next): (&Chain, &Chain)| Gap {
            first: before.last() + 1,
            last: next.first() - 1,
        };
        pairs.map(gap).filter(|gap| gap.first <= gap.last).collect()
    }

    /// The chain of which a moment is. An error says what can be had instead.
    pub fn holding(&self, moment: Moment) -> Result<&Chain, ArchiveError> {
        let newest = self.all.iter().max_by_key(|chain| reach(chain));
        let newest = newest.ok_or_else(|| {
            let why: Vec<String> = self.wrong.iter().map(Wrong::to_string).collect();
            let why = match &why[..] {
                [] => "its only base was never ended".to_owned(),
                why => why.join("; "),
            };
            let cluster = self.cluster;
            ArchiveError::Asked(format!(
                "nothing of cluster {cluster} can be restored: {why}"
            ))
        })?;
        let holds = |chain: &&Chain| match moment {
            Moment::End => chain.last() == newest.last(),
            Moment::Revision(revision) => (chain.first()..=chain.last()).contains(&revision),
            Moment::Time(time) => self.holds(chain, time),
        };
        let lost = self.wrong.iter().find(|wrong| wrong.last > newest.last());
        match (moment, lost) {
            (Moment::End, Some(lost)) => Err(self.refused(&format!(
                "the archive reaches further than what can be restored of it: {lost}. Name a moment with --at"
            ))),
            _ => {
                let holding = self.all.iter().filter(holds);
                let holding = holding.max_by_key(|chain| reach(chain));
                holding.ok_or_else(|| self.refused(&self.why_not(moment, newest)))
            }
        }
    }

    /// Whether the last event at or before a time is surely one of this chain's.
    fn holds(&self, chain: &Chain, time: Time) -> bool {
        let begun = chain.begins().is_none_or(|begins| begins <= time);
        let next = self.all.iter().find(|next| next.adjoins(chain));
        let nothing_between = || {
            next.and_then(Chain::begins)
                .is_some_and(|begins| time < begins)
        };
        begun
            && match time.cmp(&chain.time()) {
                Ordering::Less => true,
                // What is missing may have been stamped in the same millisecond.
                Ordering::Equal => nothing_between() || self.highest <= chain.last(),
                Ordering::Greater => nothing_between(),
            }
    }

    fn why_not(&self, moment: Moment, newest: &Chain) -> String {
        let whole = self.highest <= newest.last();
        match moment {
            Moment::Revision(revision) if revision > newest.last() && whole => {
                let ends = newest.last();
                format!("the archive ends at revision {ends}, {revision} is behind it")
            }
            Moment::Revision(revision) if self.all.iter().all(|chain| revision < chain.first()) => {
                let first = self.all.iter().map(Chain::first).min().unwrap_or_default();
                format!("the archive begins at revision {first}, {revision} is before it")
            }
            Moment::Revision(revision) => format!("the archive does not have revision {revision}"),
            Moment::Time(time) if time > newest.time() && whole => {
                let (ends, time) = (newest.time().milli(), time.milli());
                format!("the archive ends at {ends}, {time} is behind it")
            }
            Moment::Time(time) => {
                let before = |chain: &Chain| chain.begins().is_some_and(|begins| time < begins);
                let at = time.milli();
                if self.all.iter().all(before) {
                    return format!("the archive has nothing from before {at}");
                }
                let ends = self.all.iter().find(|chain| chain.time() == time);
                match ends.map(Chain::last) {
                    Some(last) => format!(
                        "more may have happened at {at} than the archive has, which breaks off there: name the revision, {last}"
                    ),
                    None => format!("the archive does not have what happened last before {at}"),
                }
            }
            Moment::End => "the archive has no end".to_owned(),
        }
    }

    fn refused(&self, why: &str) -> ArchiveError {
        let stretches: Vec<String> = self.all.iter().map(Chain::to_string).collect();
        let stretches = stretches.join("; ");
        ArchiveError::Asked(format!("{why}. What can be restored: {stretches}"))
    }
}

/// The one that reaches furthest, and of those the longest.
fn reach(chain: &Chain) -> (u64, Reverse<u64>) {
    (chain.last(), Reverse(chain.first()))
}

/// A file that is damaged, apart from a store that can't be read.
fn readable<H>(head: Result<H, ArchiveError>) -> Result<Result<H, FileError>, ArchiveError> {
    match head {
        Ok(head) => Ok(Ok(head)),
        Err(ArchiveError::File { error, .. }) => Ok(Err(error)),
        Err(other) => Err(other),
    }
}

//! Finds reminders: what both databases are asked, and in which order.
//!
//! Without `contains`, one statement answers. With it, the newest rows that are otherwise asked for
//! are looked at one by one first: what is common, or asked about a user who has few reminders, is
//! found among them. Only then the search index is asked for what is older, and what it names is
//! looked at, since it names more than there is.

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::ops::{Range, RangeInclusive};

use super::question::{Dialect, Question, range};
use super::{grams, postings};
use crate::error::Problem;
use crate::rows::body::Body;
use crate::text::Needle;
use crate::{Cursor, FoundReminder, Page, Query};

/// Rows that are looked at before the search index is asked.
const LOOKED_AT: usize = 1_024;
/// Rows that are in memory at a time, beside a page.
const AT_ONCE: usize = 256;
/// Indexes that are asked at a time, at most; the first alone, then more and more.
const MOST_INDEXES: usize = 64;
/// Blocks of one index: their ids follow each other.
pub(crate) const BLOCKS: i64 = 1 << 16;

/// A search index: see [`postings`].
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) id: i64,
    pub(crate) last_n: i64,
    /// The first gram of each block.
    pub(crate) firsts: Vec<i64>,
}

/// A database as it is at one moment.
pub(crate) trait Snapshot {
    const DIALECT: Dialect;
    async fn rows(&self, question: Question) -> Result<Vec<FoundReminder>, Problem>;
    /// Returns the database's plan for a question, in its own words.
    async fn plan(&self, question: Question) -> Result<String, Problem>;
    /// Indexes that have some of these numbers.
    async fn heads(&self, range: Range<i64>) -> Result<Vec<Head>, Problem>;
    /// Blocks of indexes, by their ids.
    async fn blocks(&self, ids: Vec<i64>) -> Result<HashMap<i64, Vec<u8>>, Problem>;
    /// Returns the numbers of indexes' rows, by the indexes' ids.
    async fn numbers(&self, heads: Vec<i64>) -> Result<HashMap<i64, Vec<i64>>, Problem>;
    /// Returns those of these numbers that are in no index.
    async fn unindexed(&self, range: Range<i64>) -> Result<Vec<i64>, Problem>;
}

pub(crate) async fn find<S: Snapshot>(snapshot: &S, query: &Query) -> Result<Page, Problem> {
    let mut pages = Pages {
        limit: query.limit,
        found: Vec::new(),
    };
    let range = range(query);
    let Some(needle) = Needle::new(query.contains.as_deref()) else {
        pages.found = snapshot
            .rows(Question::in_range(
                query,
                range,
                pages.limit + 1,
                S::DIALECT,
            ))
            .await?;
        return Ok(pages.first());
    };
    if let Some(rest) = look(snapshot, query, &needle, range, &mut pages).await? {
        search(snapshot, query, &needle, rest, &mut pages).await?;
    }
    Ok(pages.first())
}

/// Returns the database's plans for the statements of a query.
pub(crate) async fn explain<S: Snapshot>(snapshot: &S, query: &Query) -> Result<String, Problem> {
    let look = snapshot
        .plan(Question::in_range(
            query,
            range(query),
            query.limit + 1,
            S::DIALECT,
        ))
        .await?;
    let check = snapshot
        .plan(Question::among(query, vec![0; AT_ONCE], S::DIALECT))
        .await?;
    Ok(format!("{look}\n{check}"))
}

/// The result: a page, and one more reminder if there are more.
struct Pages {
    limit: usize,
    found: Vec<FoundReminder>,
}

impl Pages {
    fn is_full(&self) -> bool {
        self.found.len() > self.limit
    }

    fn add(&mut self, rows: Vec<FoundReminder>, needle: &Needle) {
        let missing = self.limit + 1 - self.found.len();
        self.found.extend(
            rows.into_iter()
                .filter(|row| needle.is_in(Body::read(&row.body).texts()))
                .take(missing),
        );
    }

    fn first(mut self) -> Page {
        let is_more = self.is_full();
        self.found.truncate(self.limit);
        let next = self
            .found
            .last()
            .map(|last| last.cursor)
            .filter(|_| is_more);
        Page {
            reminders: self.found,
            next,
        }
    }
}

/// Looks at the newest rows. Answers what is left to be searched.
async fn look<S: Snapshot>(
    snapshot: &S,
    query: &Query,
    needle: &Needle,
    range: Range<i64>,
    pages: &mut Pages,
) -> Result<Option<Range<i64>>, Problem> {
    let Range { start, mut end } = range;
    for _ in 0..LOOKED_AT / AT_ONCE {
        let rows = snapshot
            .rows(Question::in_range(query, start..end, AT_ONCE, S::DIALECT))
            .await?;
        let is_all = rows.len() < AT_ONCE;
        end = rows.last().map_or(end, |row| row.cursor.0);
        pages.add(rows, needle);
        if is_all || pages.is_full() {
            return Ok(None);
        }
    }
    Ok(Some(start..end))
}

/// Asks the search indexes, those with the newest rows first. Matches of an index wait until no
/// other index can have newer ones.
async fn search<S: Snapshot>(
    snapshot: &S,
    query: &Query,
    needle: &Needle,
    range: Range<i64>,
    pages: &mut Pages,
) -> Result<(), Problem> {
    let needed = grams::needed(needle.as_str());
    let mut named: BinaryHeap<i64> = snapshot.unindexed(range.clone()).await?.into();
    let mut heads = snapshot.heads(range.clone()).await?;
    heads.sort_unstable_by_key(|head| head.last_n);
    let mut width = 1;
    loop {
        let asked = heads.split_off(heads.len().saturating_sub(width));
        named.extend(ask(snapshot, &needed, &asked, &range).await?);
        let newest_to_come = heads.last().map_or(-1, |head| head.last_n);
        while named.peek().is_some_and(|n| *n > newest_to_come) {
            let mut some = Vec::new();
            while some.len() < AT_ONCE && named.peek().is_some_and(|n| *n > newest_to_come) {
                some.extend(named.pop());
            }
            some.dedup();
            pages.add(
                snapshot
                    .rows(Question::among(query, some, S::DIALECT))
                    .await?,
                needle,
            );
            if pages.is_full() {
                return Ok(());
            }
        }
        if heads.is_empty() {
            return Ok(());
        }
        width = (2 * width).min(MOST_INDEXES);
    }
}

/// Returns the numbers of the range that some indexes name: all that have what is needed, and
/// perhaps more.
async fn ask<S: Snapshot>(
    snapshot: &S,
    needed: &[RangeInclusive<i64>],
    heads: &[Head],
    range: &Range<i64>,
) -> Result<Vec<i64>, Problem> {
    let ids_of = |head: &Head, needed: &RangeInclusive<i64>| {
        let first = head.id * BLOCKS;
        postings::blocks_of(&head.firsts, needed).map(move |block| first + block as i64)
    };
    let mut ids: Vec<i64> = heads
        .iter()
        .flat_map(|head| needed.iter().flat_map(|one| ids_of(head, one)))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let blocks = snapshot.blocks(ids).await?;
    let mut places: BTreeMap<i64, Vec<u16>> = BTreeMap::new();
    for head in heads {
        let having = |one: &RangeInclusive<i64>| {
            let mut places = Vec::new();
            let found = ids_of(head, one).filter_map(|id| blocks.get(&id));
            found.for_each(|block| postings::places_of(block, one, &mut places));
            places.sort_unstable();
            places.dedup();
            places
        };
        let both = |some: Vec<u16>, others: Vec<u16>| {
            some.into_iter()
                .filter(|place| others.binary_search(place).is_ok())
                .collect()
        };
        let in_all = needed.iter().map(having).reduce(both).unwrap_or_default();
        if !in_all.is_empty() {
            places.insert(head.id, in_all);
        }
    }
    let numbers = snapshot.numbers(places.keys().copied().collect()).await?;
    let named = places.iter().flat_map(|(head, places)| {
        let numbers = numbers.get(head).map_or(&[][..], Vec::as_slice);
        places
            .iter()
            .filter_map(|place| numbers.get(usize::from(*place)).copied())
    });
    Ok(named.filter(|n| range.contains(n)).collect())
}

impl FoundReminder {
    pub(crate) fn new(n: i64, body: String, outcome: String, at_ms: i64, trail: String) -> Self {
        Self {
            cursor: Cursor(n),
            body,
            outcome,
            at_ms,
            trail,
        }
    }
}

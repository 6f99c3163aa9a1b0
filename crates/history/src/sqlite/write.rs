//! Writes and removes reminders, each time in one transaction that no other writer comes between.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::index;
use crate::error::Problem;
use crate::rows::batch::{Batch, Changed, Key, New, Stored};
use crate::rows::body::Body;
use crate::rows::number::{self, Numbers};
use crate::rows::trail::{Step, Trail};
use crate::search::indexing;
use crate::{Entry, Written};

pub(super) fn write(connection: &mut Connection, entries: Vec<Entry>) -> Result<Written, Problem> {
    let mut batch = Batch::new(entries);
    let change = begin(connection)?;
    let erased = batch.erase(&erasures(&change, &batch)?);
    let (stored, numbers) = known(&change, &batch)?;
    let (new, changed) = batch.merge(stored, numbers)?;
    let indexes = index::begin(&change, indexing::fresh(&new, &changed))?;
    for row in &new {
        insert(&change, row)?;
    }
    for row in &changed {
        update(&change, row)?;
    }
    if let Some(indexes) = indexes {
        index::finish(&change, indexes)?;
    }
    change.commit()?;
    Ok(Written {
        new: new.len() as u64,
        changed: changed.len() as u64,
        erased,
    })
}

pub(super) fn erase(connection: &mut Connection, user: &str, at_ms: i64) -> Result<u64, Problem> {
    // Removed rows are overwritten in the file, too.
    connection.execute_batch("PRAGMA secure_delete = ON")?;
    let erased = erase_in_one(connection, user, at_ms);
    connection.execute_batch("PRAGMA secure_delete = OFF")?;
    erased
}

pub(super) fn forget_before(
    connection: &mut Connection,
    published_ms: i64,
    at_most: usize,
) -> Result<u64, Problem> {
    let change = begin(connection)?;
    change.execute("DELETE FROM erasures WHERE at < ?1", [published_ms])?;
    let before = number::first_of(published_ms);
    let select = "SELECT n FROM reminders WHERE n < ?1 ORDER BY n LIMIT ?2";
    let old = numbers(&change, select, params![before, at_most as i64])?;
    remove(&change, &old)?;
    let is_all = old.len() < at_most;
    index::drop_before(
        &change,
        if is_all {
            before
        } else {
            old.last().map_or(0, |last| last + 1)
        },
    )?;
    change.commit()?;
    Ok(old.len() as u64)
}

fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

// Writing.

/// Returns the erased users of a batch, with the times of erasure.
fn erasures(change: &Transaction, batch: &Batch) -> Result<HashMap<String, i64>, Problem> {
    let mut found = HashMap::new();
    if change.query_row("SELECT NOT EXISTS (SELECT 1 FROM erasures)", [], |row| {
        row.get(0)
    })? {
        return Ok(found);
    }
    let mut select = change.prepare_cached("SELECT at FROM erasures WHERE user_name = ?1")?;
    for user in batch.users() {
        if let Some(at_ms) = select.query_row([&user], |row| row.get(0)).optional()? {
            found.insert(user, at_ms);
        }
    }
    Ok(found)
}

/// Returns the stored reminders of a batch, and the used numbers of their milliseconds.
fn known(change: &Transaction, batch: &Batch) -> Result<(HashMap<Key, Stored>, Numbers), Problem> {
    let mut select = change.prepare_cached(
        "SELECT n, body, trail FROM reminders
            WHERE id = ?1 AND source = ?2 AND user_name IS ?3 AND n >= ?4 AND n < ?5",
    )?;
    let mut last =
        change.prepare_cached("SELECT max(n) FROM reminders WHERE n >= ?1 AND n < ?2")?;
    let (mut stored, mut taken) = (HashMap::new(), Numbers::default());
    let mut milliseconds = BTreeSet::new();
    for key in batch.drafts.iter().map(|draft| &draft.key) {
        let Key {
            source,
            id,
            user,
            published_ms,
        } = key;
        let all = number::all_of(*published_ms);
        let read = |row: &rusqlite::Row| {
            Ok(Stored {
                n: row.get(0)?,
                body: row.get(1)?,
                trail: row.get(2)?,
            })
        };
        let found = select
            .query_row(params![id, source, user, all.start, all.end], read)
            .optional()?;
        if let Some(found) = found {
            stored.insert(key.clone(), found);
        } else if milliseconds.insert(*published_ms)
            && let Some(n) = last.query_row([all.start, all.end], |row| row.get(0))?
        {
            taken.taken(n);
        }
    }
    Ok((stored, taken))
}

fn insert(change: &Transaction, New { n, draft, body, .. }: &New) -> Result<(), Problem> {
    let (outcome, at_ms) = draft.trail().latest();
    let mut insert =
        change.prepare_cached("INSERT INTO reminders VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    insert.execute(params![
        n,
        draft.key.source,
        draft.key.id,
        draft.key.user,
        outcome,
        at_ms,
        body,
        draft.trail().to_json(),
    ])?;
    add_tags(change, *n, body)?;
    add_associates(change, *n, draft.trail())
}

fn update(change: &Transaction, Changed { n, trail, body }: &Changed) -> Result<(), Problem> {
    let (outcome, at_ms) = trail.latest();
    let mut update = change
        .prepare_cached("UPDATE reminders SET outcome = ?2, at = ?3, trail = ?4 WHERE n = ?1")?;
    update.execute(params![n, outcome, at_ms, trail.to_json()])?;
    if let Some(body) = body {
        change
            .prepare_cached("UPDATE reminders SET body = ?2 WHERE n = ?1")?
            .execute(params![n, body])?;
        add_tags(change, *n, body)?;
    }
    add_associates(change, *n, trail)
}

fn add_tags(change: &Transaction, n: i64, body: &str) -> Result<(), Problem> {
    let mut insert = change.prepare_cached("INSERT OR IGNORE INTO tags VALUES (?1, ?2)")?;
    for tag in Body::read(body).tags() {
        insert.execute(params![tag, n])?;
    }
    Ok(())
}

fn add_associates(change: &Transaction, n: i64, trail: &Trail) -> Result<(), Problem> {
    for associate in trail.steps().iter().filter_map(Step::to) {
        let mut insert =
            change.prepare_cached("INSERT OR IGNORE INTO associates VALUES (?1, ?2)")?;
        insert.execute(params![associate, n])?;
    }
    Ok(())
}

// Removing.

fn erase_in_one(connection: &mut Connection, user: &str, at_ms: i64) -> Result<u64, Problem> {
    let change = begin(connection)?;
    change.execute(
        "INSERT INTO erasures VALUES (?1, ?2) ON CONFLICT (user_name) DO UPDATE SET at = max(at, excluded.at)",
        params![user, at_ms],
    )?;
    let select = "SELECT n FROM reminders WHERE user_name = ?1 AND n < ?2 ORDER BY n";
    let gone = numbers(&change, select, params![user, number::all_of(at_ms).end])?;
    remove(&change, &gone)?;
    index::forget(&change, &gone)?;
    blank(&change, user, at_ms)?;
    change.commit()?;
    Ok(gone.len() as u64)
}

/// Removes rows, and all that was written beside them.
fn remove(change: &Transaction, numbers: &[i64]) -> Result<(), Problem> {
    let mut row =
        change.prepare_cached("DELETE FROM reminders WHERE n = ?1 RETURNING body, trail")?;
    let mut of_tag = change.prepare_cached("DELETE FROM tags WHERE tag = ?1 AND n = ?2")?;
    let mut of_associate =
        change.prepare_cached("DELETE FROM associates WHERE user_name = ?1 AND n = ?2")?;
    for n in numbers {
        let (body, trail): (String, String) =
            row.query_row([n], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for tag in Body::read(&body).tags() {
            of_tag.execute(params![tag, n])?;
        }
        for associate in Trail::stored(*n, &trail)?
            .steps()
            .iter()
            .filter_map(Step::to)
        {
            of_associate.execute(params![associate, n])?;
        }
    }
    Ok(())
}

/// Takes a user's name out of others' trails.
fn blank(change: &Transaction, user: &str, at_ms: i64) -> Result<(), Problem> {
    let named = numbers(
        change,
        "SELECT n FROM associates WHERE user_name = ?1",
        [user],
    )?;
    let mut select = change.prepare_cached("SELECT trail FROM reminders WHERE n = ?1")?;
    let mut update = change.prepare_cached("UPDATE reminders SET trail = ?2 WHERE n = ?1")?;
    let mut delete =
        change.prepare_cached("DELETE FROM associates WHERE user_name = ?1 AND n = ?2")?;
    for n in named {
        let mut trail = Trail::stored(n, &select.query_row([n], |row| row.get::<_, String>(0))?)?;
        trail.blank_to(user, at_ms);
        update.execute(params![n, trail.to_json()])?;
        if !trail.names(user) {
            delete.execute(params![user, n])?;
        }
    }
    Ok(())
}

fn numbers(
    change: &Transaction,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<i64>, Problem> {
    let mut select = change.prepare_cached(sql)?;
    let numbers = select
        .query_map(params, |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(numbers)
}

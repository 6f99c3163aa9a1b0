//! Keeps the search index.

use std::thread::JoinHandle;

use rusqlite::{OptionalExtension, Transaction, params};

use crate::error::Problem;
use crate::search::find::BLOCKS;
use crate::search::indexing::{self, WORTH_AN_INDEX};
use crate::search::postings::{self, Index};

/// Indexes that are being made, if reminders enough are in none with these; else remembers these
/// for later.
pub(super) fn begin(
    change: &Transaction,
    fresh: Vec<(i64, String)>,
) -> Result<Option<JoinHandle<Vec<Index>>>, Problem> {
    let waiting: i64 = change.query_row("SELECT count(*) FROM unindexed", [], |row| row.get(0))?;
    if waiting as usize + fresh.len() < WORTH_AN_INDEX {
        let mut insert = change.prepare_cached("INSERT OR IGNORE INTO unindexed VALUES (?1)")?;
        for (n, _) in fresh {
            insert.execute([n])?;
        }
        return Ok(None);
    }
    let mut select = change
        .prepare_cached("SELECT r.n, r.body FROM unindexed u JOIN reminders r ON r.n = u.n")?;
    let waiting = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut rows = waiting.collect::<Result<Vec<(i64, String)>, _>>()?;
    rows.extend(fresh);
    change.execute("DELETE FROM unindexed", [])?;
    Ok(Some(std::thread::spawn(move || indexing::indexes(rows))))
}

/// Stores indexes when they are made.
pub(super) fn finish(change: &Transaction, indexes: JoinHandle<Vec<Index>>) -> Result<(), Problem> {
    let indexes = indexes
        .join()
        .map_err(|_| Problem::broken("the search index cannot be made"))?;
    indexes.iter().try_for_each(|index| store(change, index))
}

fn store(change: &Transaction, index: &Index) -> Result<(), Problem> {
    let mut insert = change.prepare_cached(
        "INSERT INTO search_heads (first_n, last_n, firsts, numbers) VALUES (?1, ?2, ?3, ?4) RETURNING id",
    )?;
    let (first, last) = (index.numbers.first(), index.numbers.last());
    let values = params![
        first,
        last,
        postings::pack(&index.firsts),
        postings::pack(&index.numbers)
    ];
    let id: i64 = insert.query_row(values, |row| row.get(0))?;
    let mut insert = change.prepare_cached("INSERT INTO search_blocks VALUES (?1, ?2)")?;
    for (nth, block) in index.blocks.iter().enumerate() {
        insert.execute(params![id * BLOCKS + nth as i64, block])?;
    }
    Ok(())
}

/// Takes out of the index what was in these reminders, whose numbers are in order.
pub(super) fn forget(change: &Transaction, gone: &[i64]) -> Result<(), Problem> {
    let (Some(first), Some(last)) = (gone.first(), gone.last()) else {
        return Ok(());
    };
    let mut delete = change.prepare_cached("DELETE FROM unindexed WHERE n = ?1")?;
    for n in gone {
        delete.execute([n])?;
    }
    let mut heads = change.prepare_cached(
        "SELECT id, numbers FROM search_heads WHERE last_n >= ?1 AND +first_n <= ?2",
    )?;
    let mut heads = heads.query([first, last])?;
    while let Some(head) = heads.next()? {
        let places = indexing::places(
            &postings::unpack(head.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?),
            gone,
        );
        if !places.is_empty() {
            forget_in(change, head.get(0)?, &places)?;
        }
    }
    Ok(())
}

fn forget_in(change: &Transaction, head: i64, places: &[u16]) -> Result<(), Problem> {
    let mut select = change.prepare_cached("SELECT block FROM search_blocks WHERE id = ?1")?;
    let mut update = change.prepare_cached("UPDATE search_blocks SET block = ?2 WHERE id = ?1")?;
    for id in head * BLOCKS.. {
        let Some(block) = select
            .query_row([id], |row| row.get::<_, Vec<u8>>(0))
            .optional()?
        else {
            break;
        };
        if let Some(kept) = postings::without(&block, places) {
            update.execute(params![id, kept])?;
        }
    }
    Ok(())
}

/// Drops indexes that have no number from here on.
pub(super) fn drop_before(change: &Transaction, n: i64) -> Result<(), Problem> {
    change.execute("DELETE FROM unindexed WHERE n < ?1", [n])?;
    let mut delete =
        change.prepare_cached("DELETE FROM search_heads WHERE last_n < ?1 RETURNING id")?;
    let dropped = delete
        .query_map([n], |row| row.get(0))?
        .collect::<Result<Vec<i64>, _>>()?;
    let mut delete =
        change.prepare_cached("DELETE FROM search_blocks WHERE id >= ?1 AND id < ?2")?;
    for id in dropped {
        delete.execute([id * BLOCKS, (id + 1) * BLOCKS])?;
    }
    Ok(())
}

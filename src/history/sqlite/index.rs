//! Keeps the search index.

use rusqlite::{OptionalExtension, Transaction, params};

use super::super::Problem;
use super::super::find::BLOCKS;
use super::super::indexing::{self, WORTH_AN_INDEX};
use super::super::postings::{self, Index};

/// Adds reminders, or remembers them for later.
pub(super) fn add(change: &Transaction, fresh: &[(i64, &str)]) -> Result<(), Problem> {
    let waiting: usize = change.query_row("SELECT count(*) FROM unindexed", [], |row| row.get::<_, i64>(0))? as usize;
    if waiting + fresh.len() < WORTH_AN_INDEX {
        let mut insert = change.prepare_cached("INSERT OR IGNORE INTO unindexed VALUES (?1)")?;
        for (n, _) in fresh {
            insert.execute([n])?;
        }
        return Ok(());
    }
    let mut select = change.prepare_cached("SELECT r.n, r.body FROM unindexed u JOIN reminders r ON r.n = u.n")?;
    let waiting = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let waiting: Vec<(i64, String)> = waiting.collect::<Result<_, _>>()?;
    let waiting = waiting.iter().map(|(n, body)| (*n, body.as_str()));
    let mut rows: Vec<(i64, &str)> = waiting.chain(fresh.iter().copied()).collect();
    for index in indexing::indexes(&mut rows) {
        store(change, &index)?;
    }
    change.execute("DELETE FROM unindexed", [])?;
    Ok(())
}

fn store(change: &Transaction, index: &Index) -> Result<(), Problem> {
    let mut insert = change.prepare_cached(
        "INSERT INTO search_heads (first_n, last_n, firsts, numbers) VALUES (?1, ?2, ?3, ?4) RETURNING id",
    )?;
    let (first, last) = (index.numbers.first(), index.numbers.last());
    let values = params![first, last, postings::pack(&index.firsts), postings::pack(&index.numbers)];
    let id: i64 = insert.query_row(values, |row| row.get(0))?;
    let mut insert = change.prepare_cached("INSERT INTO search_blocks VALUES (?1, ?2)")?;
    for (nth, block) in index.blocks.iter().enumerate() {
        insert.execute(params![id * BLOCKS + nth as i64, block])?;
    }
    Ok(())
}

/// Takes out of the index what was in these reminders, whose numbers are in order.
pub(super) fn forget(change: &Transaction, gone: &[i64]) -> Result<(), Problem> {
    let (Some(first), Some(last)) = (gone.first(), gone.last()) else { return Ok(()) };
    let mut delete = change.prepare_cached("DELETE FROM unindexed WHERE n = ?1")?;
    for n in gone {
        delete.execute([n])?;
    }
    let mut heads =
        change.prepare_cached("SELECT id, numbers FROM search_heads WHERE last_n >= ?1 AND +first_n <= ?2")?;
    let mut heads = heads.query([first, last])?;
    while let Some(head) = heads.next()? {
        let places =
            indexing::places(&postings::unpack(head.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?), gone);
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
        let Some(block) = select.query_row([id], |row| row.get::<_, Vec<u8>>(0)).optional()? else { break };
        if let Some(kept) = postings::without(&block, places) {
            update.execute(params![id, kept])?;
        }
    }
    Ok(())
}

/// Drops indexes that have no number from here on.
pub(super) fn drop_before(change: &Transaction, n: i64) -> Result<(), Problem> {
    change.execute("DELETE FROM unindexed WHERE n < ?1", [n])?;
    let mut delete = change.prepare_cached("DELETE FROM search_heads WHERE last_n < ?1 RETURNING id")?;
    let dropped = delete.query_map([n], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    let mut delete = change.prepare_cached("DELETE FROM search_blocks WHERE id >= ?1 AND id < ?2")?;
    for id in dropped {
        delete.execute([id * BLOCKS, (id + 1) * BLOCKS])?;
    }
    Ok(())
}

//! Keeps the search index.

use deadpool_postgres::Transaction;
use tokio::task::JoinHandle;

use crate::error::Problem;
use crate::search::find::BLOCKS;
use crate::search::indexing::{self, WORTH_AN_INDEX};
use crate::search::postings::{self, Index};

/// Indexes that are being made, if reminders enough are in none with these; else remembers these
/// for later.
pub(super) async fn begin(
    change: &Transaction<'_>,
    fresh: Vec<(i64, String)>,
) -> Result<Option<JoinHandle<Vec<Index>>>, Problem> {
    let waiting: i64 = change
        .query_one("SELECT count(*) FROM unindexed", &[])
        .await?
        .get(0);
    if waiting as usize + fresh.len() < WORTH_AN_INDEX {
        let numbers: Vec<i64> = fresh.iter().map(|(n, _)| *n).collect();
        let insert = "INSERT INTO unindexed SELECT unnest($1::bigint[]) ON CONFLICT DO NOTHING";
        change.execute(insert, &[&numbers]).await?;
        return Ok(None);
    }
    let select = "DELETE FROM unindexed u USING reminders r WHERE r.n = u.n RETURNING r.n, r.body";
    let waiting = change.query(select, &[]).await?;
    let mut rows: Vec<(i64, String)> = waiting.iter().map(|row| (row.get(0), row.get(1))).collect();
    rows.extend(fresh);
    Ok(Some(tokio::task::spawn_blocking(move || {
        indexing::indexes(rows)
    })))
}

/// Stores indexes when they are made.
pub(super) async fn finish(
    change: &Transaction<'_>,
    indexes: JoinHandle<Vec<Index>>,
) -> Result<(), Problem> {
    for index in indexes.await.map_err(Problem::broken)? {
        store(change, &index).await?;
    }
    Ok(())
}

async fn store(change: &Transaction<'_>, index: &Index) -> Result<(), Problem> {
    let insert = "INSERT INTO search_heads SELECT coalesce(max(id), 0) + 1, $1, $2, $3, $4 FROM search_heads RETURNING id";
    let insert = change.prepare_cached(insert).await?;
    let (first, last) = (index.numbers.first(), index.numbers.last());
    let (firsts, numbers) = (
        postings::pack(&index.firsts),
        postings::pack(&index.numbers),
    );
    let id: i64 = change
        .query_one(&insert, &[&first, &last, &firsts, &numbers])
        .await?
        .get(0);
    let insert = "INSERT INTO search_blocks SELECT $1 + nth - 1, block FROM unnest($2::bytea[]) WITH ORDINALITY AS b (block, nth)";
    change
        .execute(insert, &[&(id * BLOCKS), &index.blocks])
        .await?;
    Ok(())
}

/// Takes out of the index what was in these reminders, whose numbers are in order.
pub(super) async fn forget(change: &Transaction<'_>, gone: &[i64]) -> Result<(), Problem> {
    let (Some(first), Some(last)) = (gone.first(), gone.last()) else {
        return Ok(());
    };
    change
        .execute("DELETE FROM unindexed WHERE n = ANY($1)", &[&gone])
        .await?;
    let heads = "SELECT id, numbers FROM search_heads WHERE last_n >= $1 AND first_n <= $2";
    for head in change.query(heads, &[first, last]).await? {
        let places = indexing::places(&postings::unpack(head.get(1)), gone);
        if !places.is_empty() {
            forget_in(change, head.get(0), &places).await?;
        }
    }
    Ok(())
}

async fn forget_in(change: &Transaction<'_>, head: i64, places: &[u16]) -> Result<(), Problem> {
    let select = "SELECT id, block FROM search_blocks WHERE id >= $1 AND id < $2";
    let blocks = change
        .query(select, &[&(head * BLOCKS), &((head + 1) * BLOCKS)])
        .await?;
    let kept = blocks
        .iter()
        .filter_map(|row| Some((row.get::<_, i64>(0), postings::without(row.get(1), places)?)));
    let (ids, blocks): (Vec<i64>, Vec<Vec<u8>>) = kept.unzip();
    let update = "UPDATE search_blocks b SET block = k.block FROM unnest($1::bigint[], $2::bytea[]) AS k (id, block) WHERE b.id = k.id";
    change.execute(update, &[&ids, &blocks]).await?;
    Ok(())
}

/// Drops indexes that have no number from here on.
pub(super) async fn drop_before(change: &Transaction<'_>, n: i64) -> Result<(), Problem> {
    change
        .execute("DELETE FROM unindexed WHERE n < $1", &[&n])
        .await?;
    for dropped in change
        .query(
            "DELETE FROM search_heads WHERE last_n < $1 RETURNING id",
            &[&n],
        )
        .await?
    {
        let first = dropped.get::<_, i64>(0) * BLOCKS;
        change
            .execute(
                "DELETE FROM search_blocks WHERE id >= $1 AND id < $2",
                &[&first, &(first + BLOCKS)],
            )
            .await?;
    }
    Ok(())
}

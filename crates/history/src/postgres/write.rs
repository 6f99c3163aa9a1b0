//! Writes and removes reminders, in a transaction that no other writer comes between. A batch costs
//! a few statements, however large it is.

use std::collections::{BTreeSet, HashMap};

use deadpool_postgres::Transaction;
use futures_util::pin_mut;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};

use super::index;
use crate::error::Problem;
use crate::rows::batch::{Batch, Changed, Key, New, Stored};
use crate::rows::body::Body;
use crate::rows::number::{self, Numbers};
use crate::rows::trail::{Step, Trail};
use crate::search::indexing;
use crate::{Entry, Written};

/// Reminders that are removed at a time: what is in memory of them.
const REMOVED_AT_ONCE: usize = 1_000;

pub(super) async fn write(
    change: &Transaction<'_>,
    entries: Vec<Entry>,
) -> Result<Written, Problem> {
    let mut batch = Batch::new(entries);
    let erased = batch.erase(&erasures(change, &batch).await?);
    let (stored, numbers) = known(change, &batch).await?;
    let (new, changed) = batch.merge(stored, numbers)?;
    let indexes = index::begin(change, indexing::fresh(&new, &changed)).await?;
    insert(change, &new).await?;
    update(change, &changed).await?;
    if let Some(indexes) = indexes {
        index::finish(change, indexes).await?;
    }
    Ok(Written {
        new: new.len() as u64,
        changed: changed.len() as u64,
        erased,
    })
}

pub(super) async fn erase(
    change: &Transaction<'_>,
    user: &str,
    at_ms: i64,
) -> Result<u64, Problem> {
    let remember = "INSERT INTO erasures VALUES ($1, $2)
        ON CONFLICT (user_name) DO UPDATE SET at = greatest(erasures.at, excluded.at)";
    change.execute(remember, &[&user, &at_ms]).await?;
    let select = "SELECT n FROM reminders WHERE user_name = $1 AND n < $2 ORDER BY n";
    let gone = numbers(change, select, &[&user, &number::all_of(at_ms).end]).await?;
    for some in gone.chunks(REMOVED_AT_ONCE) {
        remove(change, some).await?;
    }
    index::forget(change, &gone).await?;
    blank(change, user, at_ms).await?;
    Ok(gone.len() as u64)
}

pub(super) async fn forget_before(
    change: &Transaction<'_>,
    published_ms: i64,
    at_most: usize,
) -> Result<u64, Problem> {
    change
        .execute("DELETE FROM erasures WHERE at < $1", &[&published_ms])
        .await?;
    let before = number::first_of(published_ms);
    let select = "SELECT n FROM reminders WHERE n < $1 ORDER BY n LIMIT $2";
    let old = numbers(change, select, &[&before, &(at_most as i64)]).await?;
    remove(change, &old).await?;
    let is_all = old.len() < at_most;
    index::drop_before(
        change,
        if is_all {
            before
        } else {
            old.last().map_or(0, |last| last + 1)
        },
    )
    .await?;
    Ok(old.len() as u64)
}

// Writing.

/// Returns the erased users of a batch, with the times of erasure.
async fn erasures(
    change: &Transaction<'_>,
    batch: &Batch,
) -> Result<HashMap<String, i64>, Problem> {
    if change
        .query_one("SELECT NOT EXISTS (SELECT 1 FROM erasures)", &[])
        .await?
        .get(0)
    {
        return Ok(HashMap::new());
    }
    let select = change
        .prepare_cached("SELECT user_name, at FROM erasures WHERE user_name = ANY($1)")
        .await?;
    let users: Vec<String> = batch.users().into_iter().collect();
    let rows = change.query(&select, &[&users]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Returns the stored reminders of a batch, and the used numbers of their milliseconds.
async fn known(
    change: &Transaction<'_>,
    batch: &Batch,
) -> Result<(HashMap<Key, Stored>, Numbers), Problem> {
    let keys: Vec<&Key> = batch.drafts.iter().map(|draft| &draft.key).collect();
    let sources: Vec<&str> = keys.iter().map(|key| &*key.source).collect();
    let ids: Vec<&str> = keys.iter().map(|key| &*key.id).collect();
    let users: Vec<Option<&str>> = keys.iter().map(|key| key.user.as_deref()).collect();
    let (firsts, ends): (Vec<i64>, Vec<i64>) = keys
        .iter()
        .map(|key| number::all_of(key.published_ms))
        .map(|all| (all.start, all.end))
        .unzip();
    let select = "SELECT k.nth, r.n, r.body, r.trail
        FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
            WITH ORDINALITY AS k (source, id, user_name, first, last, nth)
        JOIN reminders r ON r.id = k.id AND r.source = k.source AND r.n >= k.first AND r.n < k.last
            AND r.user_name IS NOT DISTINCT FROM k.user_name";
    let select = change.prepare_cached(select).await?;
    let rows = change
        .query(&select, &[&sources, &ids, &users, &firsts, &ends])
        .await?;
    let stored = rows.iter().map(|row| {
        let key = keys[row.get::<_, i64>(0) as usize - 1].clone();
        (
            key,
            Stored {
                n: row.get(1),
                body: row.get(2),
                trail: row.get(3),
            },
        )
    });
    let stored = stored.collect();

    let milliseconds: BTreeSet<(i64, i64)> = firsts.into_iter().zip(ends).collect();
    let (firsts, ends): (Vec<i64>, Vec<i64>) = milliseconds.into_iter().unzip();
    let select = "SELECT r.n FROM unnest($1::bigint[], $2::bigint[]) AS k (first, last),
        LATERAL (SELECT n FROM reminders WHERE n >= k.first AND n < k.last ORDER BY n DESC LIMIT 1) r";
    let select = change.prepare_cached(select).await?;
    let mut taken = Numbers::default();
    change
        .query(&select, &[&firsts, &ends])
        .await?
        .iter()
        .for_each(|row| taken.taken(row.get(0)));
    Ok((stored, taken))
}

async fn insert(change: &Transaction<'_>, new: &[New]) -> Result<(), Problem> {
    if new.is_empty() {
        return Ok(());
    }
    const TEXT: Type = Type::TEXT;
    const NUMBER: Type = Type::INT8;
    let sink = change.copy_in("COPY reminders FROM STDIN BINARY").await?;
    let writer =
        BinaryCopyInWriter::new(sink, &[NUMBER, TEXT, TEXT, TEXT, TEXT, NUMBER, TEXT, TEXT]);
    pin_mut!(writer);
    for New { n, draft, body, .. } in new {
        let key = &draft.key;
        let (outcome, at_ms) = draft.trail().latest();
        let trail = draft.trail().to_json();
        let row: [&(dyn ToSql + Sync); 8] = [
            n,
            &key.source,
            &key.id,
            &draft.key.user,
            &outcome,
            &at_ms,
            body,
            &trail,
        ];
        writer.as_mut().write(&row).await?;
    }
    writer.finish().await?;

    let sink = change.copy_in("COPY tags FROM STDIN BINARY").await?;
    let writer = BinaryCopyInWriter::new(sink, &[TEXT, NUMBER]);
    pin_mut!(writer);
    for New { n, body, .. } in new {
        for tag in Body::read(body).tags() {
            writer.as_mut().write(&[&tag, n]).await?;
        }
    }
    writer.finish().await?;
    add_associates(change, new.iter().map(|new| (new.n, new.draft.trail()))).await
}

async fn update(change: &Transaction<'_>, changed: &[Changed]) -> Result<(), Problem> {
    if changed.is_empty() {
        return Ok(());
    }
    let numbers: Vec<i64> = changed.iter().map(|row| row.n).collect();
    let (outcomes, times): (Vec<&str>, Vec<i64>) =
        changed.iter().map(|row| row.trail.latest()).unzip();
    let trails: Vec<String> = changed.iter().map(|row| row.trail.to_json()).collect();
    let bodies: Vec<Option<&str>> = changed.iter().map(|row| row.body.as_deref()).collect();
    let update =
        "UPDATE reminders r SET outcome = c.outcome, at = c.at, trail = c.trail, body = coalesce(c.body, r.body)
        FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[]) AS c (n, outcome, at, trail, body)
        WHERE r.n = c.n";
    let update = change.prepare_cached(update).await?;
    change
        .execute(&update, &[&numbers, &outcomes, &times, &trails, &bodies])
        .await?;

    let bodies = changed
        .iter()
        .filter_map(|row| row.body.as_deref().map(|body| (row.n, Body::read(body))));
    let bodies: Vec<(i64, Body)> = bodies.collect();
    let tags = bodies
        .iter()
        .flat_map(|(n, body)| body.tags().into_iter().map(|tag| (*n, tag)));
    let (numbers, tags): (Vec<i64>, Vec<&str>) = tags.unzip();
    let insert =
        "INSERT INTO tags SELECT * FROM unnest($1::text[], $2::bigint[]) ON CONFLICT DO NOTHING";
    change.execute(insert, &[&tags, &numbers]).await?;
    add_associates(change, changed.iter().map(|row| (row.n, &row.trail))).await
}

async fn add_associates(
    change: &Transaction<'_>,
    rows: impl Iterator<Item = (i64, &Trail)>,
) -> Result<(), Problem> {
    let named = rows.flat_map(|(n, trail)| {
        trail
            .steps()
            .iter()
            .filter_map(Step::to)
            .map(move |to| (n, to))
    });
    let (numbers, names): (Vec<i64>, Vec<String>) = named.unzip();
    if !names.is_empty() {
        let insert = "INSERT INTO associates SELECT * FROM unnest($1::text[], $2::bigint[]) ON CONFLICT DO NOTHING";
        change.execute(insert, &[&names, &numbers]).await?;
    }
    Ok(())
}

// Removing.

async fn numbers(
    change: &Transaction<'_>,
    select: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<i64>, Problem> {
    Ok(change
        .query(select, values)
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect())
}

/// Removes rows, and all that was written beside them.
async fn remove(change: &Transaction<'_>, numbers: &[i64]) -> Result<(), Problem> {
    let delete = "DELETE FROM reminders WHERE n = ANY($1) RETURNING n, body, trail";
    let rows = change.query(delete, &[&numbers]).await?;
    let (mut of_tags, mut of_associates) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for row in &rows {
        let n: i64 = row.get(0);
        for tag in Body::read(row.get(1)).tags() {
            of_tags.0.push(tag.to_owned());
            of_tags.1.push(n);
        }
        for associate in Trail::stored(n, row.get(2))?
            .steps()
            .iter()
            .filter_map(Step::to)
        {
            of_associates.0.push(associate);
            of_associates.1.push(n);
        }
    }
    for (table, column, (names, numbers)) in [
        ("tags", "tag", of_tags),
        ("associates", "user_name", of_associates),
    ] {
        let delete = format!(
            "DELETE FROM {table} USING unnest($1::text[], $2::bigint[]) AS u (name, number) WHERE {column} = name AND n = number"
        );
        change.execute(&delete, &[&names, &numbers]).await?;
    }
    Ok(())
}

/// Takes a user's name out of others' trails.
async fn blank(change: &Transaction<'_>, user: &str, at_ms: i64) -> Result<(), Problem> {
    let select = "SELECT r.n, r.trail FROM associates a JOIN reminders r ON r.n = a.n WHERE a.user_name = $1";
    for row in change.query(select, &[&user]).await? {
        let n: i64 = row.get(0);
        let mut trail = Trail::stored(n, row.get(1))?;
        trail.blank_to(user, at_ms);
        change
            .execute(
                "UPDATE reminders SET trail = $2 WHERE n = $1",
                &[&n, &trail.to_json()],
            )
            .await?;
        if !trail.names(user) {
            change
                .execute(
                    "DELETE FROM associates WHERE user_name = $1 AND n = $2",
                    &[&user, &n],
                )
                .await?;
        }
    }
    Ok(())
}

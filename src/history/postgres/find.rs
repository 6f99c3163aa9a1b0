//! Finds reminders.

use deadpool_postgres::Object;
use futures_util::{StreamExt, pin_mut};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::number::Cursor;
use super::super::question::{Dialect, Question, Value};
use super::super::text::Needle;
use super::super::{Found, Page, Problem, Query};

const DIALECT: Dialect = Dialect { parameter: '$', unindexed: "" };

pub(super) async fn find(connection: &Object, query: &Query) -> Result<Page, Problem> {
    let question = Question::new(query, DIALECT);
    let needle = Needle::new(query.contains.as_deref());
    let statement = connection.prepare_cached(&question.sql).await?;
    let rows = connection.query_raw(&statement, question.values.iter().map(parameter)).await?;
    pin_mut!(rows);
    let mut page = Page::default();
    while let Some(row) = rows.next().await {
        let row = row?;
        if needle.as_ref().is_some_and(|needle| !needle.is_in(row.get(1))) {
            continue;
        }
        if page.reminders.len() == query.limit {
            page.next = page.reminders.last().map(|last| last.cursor);
            break;
        }
        page.reminders.push(found(&row)?);
    }
    Ok(page)
}

fn parameter(value: &Value) -> &(dyn ToSql + Sync) {
    match value {
        Value::Text(text) => text,
        Value::Number(number) => number,
    }
}

fn found(row: &Row) -> Result<Found, tokio_postgres::Error> {
    Ok(Found {
        cursor: Cursor(row.try_get(0)?),
        body: row.try_get(1)?,
        outcome: row.try_get(2)?,
        at_ms: row.try_get(3)?,
        trail: row.try_get(4)?,
    })
}

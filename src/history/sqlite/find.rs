//! Finds reminders.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, ToSql, params_from_iter};

use super::super::number::Cursor;
use super::super::question::{Dialect, Question, Value};
use super::super::text::Needle;
use super::super::{Found, Page, Problem, Query};

const DIALECT: Dialect = Dialect { parameter: '?', unindexed: "+" };

pub(super) fn find(connection: &Connection, query: &Query) -> Result<Page, Problem> {
    let question = Question::new(query, DIALECT);
    let needle = Needle::new(query.contains.as_deref());
    let mut statement = connection.prepare_cached(&question.sql)?;
    let mut rows = statement.query(params_from_iter(&question.values))?;
    let mut page = Page::default();
    while let Some(row) = rows.next()? {
        let body = row.get_ref("body")?.as_str().map_err(rusqlite::Error::from)?;
        if needle.as_ref().is_some_and(|needle| !needle.is_in(body)) {
            continue;
        }
        if page.reminders.len() == query.limit {
            page.next = page.reminders.last().map(|last| last.cursor);
            break;
        }
        page.reminders.push(found(row)?);
    }
    Ok(page)
}

fn found(row: &Row) -> rusqlite::Result<Found> {
    Ok(Found {
        cursor: Cursor(row.get(0)?),
        body: row.get(1)?,
        outcome: row.get(2)?,
        at_ms: row.get(3)?,
        trail: row.get(4)?,
    })
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Number(number) => ValueRef::Integer(*number),
        }))
    }
}

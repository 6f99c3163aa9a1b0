//! The searches in the file. It answers at once, on a thread that may block.

use std::collections::HashMap;
use std::ops::Range;

use futures_util::FutureExt;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{OptionalExtension, ToSql, Transaction, params_from_iter};

use crate::error::Problem;
use crate::search::find::{self, Head, Snapshot};
use crate::search::postings;
use crate::search::question::{Dialect, Question, Value};
use crate::{FoundReminder, Page, Query};

pub(super) fn find(connection: &mut rusqlite::Connection, query: &Query) -> Result<Page, Problem> {
    let moment = Moment(connection.transaction()?);
    find::find(&moment, query)
        .now_or_never()
        .expect("SQLite answers at once")
}

pub(super) fn explain(
    connection: &mut rusqlite::Connection,
    query: &Query,
) -> Result<String, Problem> {
    let moment = Moment(connection.transaction()?);
    find::explain(&moment, query)
        .now_or_never()
        .expect("SQLite answers at once")
}

/// A snapshot from the time of the first question.
struct Moment<'c>(Transaction<'c>);

impl Snapshot for Moment<'_> {
    const DIALECT: Dialect = Dialect {
        parameter: '?',
        unindexed: "+",
        among: ("IN (SELECT value FROM json_each(", "))"),
    };

    async fn rows(&self, question: Question) -> Result<Vec<FoundReminder>, Problem> {
        let mut statement = self.0.prepare_cached(&question.sql)?;
        let found = statement.query_map(params_from_iter(&question.values), |row| {
            Ok(FoundReminder::new(
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    async fn plan(&self, question: Question) -> Result<String, Problem> {
        let mut statement = self
            .0
            .prepare(&format!("EXPLAIN QUERY PLAN {}", question.sql))?;
        let lines = statement.query_map(params_from_iter(&question.values), |row| row.get(3))?;
        Ok(lines.collect::<Result<Vec<String>, _>>()?.join("\n"))
    }

    async fn heads(&self, range: Range<i64>) -> Result<Vec<Head>, Problem> {
        let select =
            "SELECT id, last_n, firsts FROM search_heads WHERE last_n >= ?1 AND +first_n < ?2";
        let mut statement = self.0.prepare_cached(select)?;
        let heads = statement.query_map([range.start, range.end], |row| {
            Ok(Head {
                id: row.get(0)?,
                last_n: row.get(1)?,
                firsts: postings::unpack(row.get_ref(2)?.as_blob()?),
            })
        })?;
        Ok(heads.collect::<Result<_, _>>()?)
    }

    async fn blocks(&self, ids: Vec<i64>) -> Result<HashMap<i64, Vec<u8>>, Problem> {
        let mut statement = self
            .0
            .prepare_cached("SELECT block FROM search_blocks WHERE id = ?1")?;
        let mut blocks = HashMap::with_capacity(ids.len());
        for id in ids {
            if let Some(block) = statement.query_row([id], |row| row.get(0)).optional()? {
                blocks.insert(id, block);
            }
        }
        Ok(blocks)
    }

    async fn numbers(&self, heads: Vec<i64>) -> Result<HashMap<i64, Vec<i64>>, Problem> {
        let mut statement = self
            .0
            .prepare_cached("SELECT numbers FROM search_heads WHERE id = ?1")?;
        let mut read = |id| {
            statement.query_row([id], |row| {
                Ok((id, postings::unpack(row.get_ref(0)?.as_blob()?)))
            })
        };
        Ok(heads.into_iter().map(&mut read).collect::<Result<_, _>>()?)
    }

    async fn unindexed(&self, range: Range<i64>) -> Result<Vec<i64>, Problem> {
        let mut statement = self
            .0
            .prepare_cached("SELECT n FROM unindexed WHERE n >= ?1 AND n < ?2")?;
        let numbers = statement.query_map([range.start, range.end], |row| row.get(0))?;
        Ok(numbers.collect::<Result<_, _>>()?)
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Number(number) => ToSqlOutput::Borrowed(ValueRef::Integer(*number)),
            Self::Numbers(numbers) => format!("{numbers:?}").into(), // As JSON.
        })
    }
}

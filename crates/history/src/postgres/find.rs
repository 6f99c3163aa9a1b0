//! The searches in the database: one statement for each question, however many ids it has.

use std::collections::HashMap;
use std::ops::Range;

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::IsolationLevel;
use tokio_postgres::types::ToSql;

use crate::error::Problem;
use crate::search::find::{self, Head, Snapshot};
use crate::search::postings;
use crate::search::question::{Dialect, Question, Value};
use crate::{FoundReminder, Page, Query};

pub(super) async fn find(connection: &mut Object, query: &Query) -> Result<Page, Problem> {
    find::find(&Moment::of(connection).await?, query).await
}

pub(super) async fn explain(connection: &mut Object, query: &Query) -> Result<String, Problem> {
    find::explain(&Moment::of(connection).await?, query).await
}

/// A snapshot from the time of the first question.
struct Moment<'c>(Transaction<'c>);

impl<'c> Moment<'c> {
    async fn of(connection: &'c mut Object) -> Result<Self, Problem> {
        let moment = connection
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true);
        Ok(Self(moment.start().await?))
    }
}

impl Snapshot for Moment<'_> {
    const DIALECT: Dialect = Dialect {
        parameter: '$',
        unindexed: "",
        among: ("= ANY(", ")"),
    };

    async fn rows(&self, question: Question) -> Result<Vec<FoundReminder>, Problem> {
        let statement = self.0.prepare_cached(&question.sql).await?;
        let values: Vec<_> = question.values.iter().map(parameter).collect();
        let rows = self.0.query(&statement, &values).await?;
        Ok(rows
            .iter()
            .map(|row| {
                FoundReminder::new(row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))
            })
            .collect())
    }

    async fn plan(&self, question: Question) -> Result<String, Problem> {
        let values: Vec<_> = question.values.iter().map(parameter).collect();
        let lines = self
            .0
            .query(&format!("EXPLAIN {}", question.sql), &values)
            .await?;
        Ok(lines
            .iter()
            .map(|row| row.get::<_, &str>(0))
            .collect::<Vec<_>>()
            .join("\n"))
    }

    async fn heads(&self, range: Range<i64>) -> Result<Vec<Head>, Problem> {
        let select =
            "SELECT id, last_n, firsts FROM search_heads WHERE last_n >= $1 AND first_n < $2";
        let statement = self.0.prepare_cached(select).await?;
        let rows = self
            .0
            .query(&statement, &[&range.start, &range.end])
            .await?;
        let head = |row: &tokio_postgres::Row| Head {
            id: row.get(0),
            last_n: row.get(1),
            firsts: postings::unpack(row.get(2)),
        };
        Ok(rows.iter().map(head).collect())
    }

    async fn blocks(&self, ids: Vec<i64>) -> Result<HashMap<i64, Vec<u8>>, Problem> {
        let statement = self
            .0
            .prepare_cached("SELECT id, block FROM search_blocks WHERE id = ANY($1)")
            .await?;
        let rows = self.0.query(&statement, &[&ids]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn numbers(&self, heads: Vec<i64>) -> Result<HashMap<i64, Vec<i64>>, Problem> {
        if heads.is_empty() {
            return Ok(HashMap::new());
        }
        let statement = self
            .0
            .prepare_cached("SELECT id, numbers FROM search_heads WHERE id = ANY($1)")
            .await?;
        let rows = self.0.query(&statement, &[&heads]).await?;
        Ok(rows
            .iter()
            .map(|row| (row.get(0), postings::unpack(row.get(1))))
            .collect())
    }

    async fn unindexed(&self, range: Range<i64>) -> Result<Vec<i64>, Problem> {
        let statement = self
            .0
            .prepare_cached("SELECT n FROM unindexed WHERE n >= $1 AND n < $2")
            .await?;
        let rows = self
            .0
            .query(&statement, &[&range.start, &range.end])
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

fn parameter(value: &Value) -> &(dyn ToSql + Sync) {
    match value {
        Value::Text(text) => text,
        Value::Number(number) => number,
        Value::Numbers(numbers) => numbers,
    }
}

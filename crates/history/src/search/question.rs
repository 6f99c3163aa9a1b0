//! A query as SQL that one index answers in order, for either database.

use std::ops::Range;

use crate::Query;
use crate::rows::number;

/// The differences between the databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// The character before a parameter's number.
    pub(crate) parameter: char,
    /// The prefix that keeps a column's index from being used.
    pub(crate) unindexed: &'static str,
    /// The text before and after a parameter that is a list of numbers.
    pub(crate) among: (&'static str, &'static str),
}

/// A statement's parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
    Numbers(Vec<i64>),
}

/// A statement that gives rows of `n, body, outcome, at, trail`, newest first. It does not check a
/// query's texts.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
    dialect: Dialect,
}

/// Returns the numbers that a query's times and cursor leave.
pub(crate) fn range(query: &Query) -> Range<i64> {
    let from = query.from_ms.map_or(0, number::first_of);
    let to = query.to_ms.map_or(i64::MAX, number::first_of);
    from..to.min(query.before.map_or(i64::MAX, |cursor| cursor.0))
}

impl Question {
    /// Asks for so many rows of this range, in the order of the index that narrows most: an id
    /// names few reminders, a user has fewer than an outcome that is not the usual one, that has
    /// fewer than a tag, a tag fewer than a source. Other conditions are checked row by row.
    pub(crate) fn in_range(
        query: &Query,
        range: Range<i64>,
        at_most: usize,
        dialect: Dialect,
    ) -> Self {
        let is_narrower = query.id.is_some() || query.user.is_some() || has_rare_outcome(query);
        let by_tag = query.tag.as_ref().filter(|_| !is_narrower);
        let mut question = Self::begin(dialect);
        let n = if by_tag.is_some() { "t.n" } else { "r.n" };
        match by_tag {
            Some(tag) => question.add(
                "FROM tags t JOIN reminders r ON r.n = t.n WHERE t.tag = ",
                text(tag),
            ),
            None => question.sql.push_str("FROM reminders r WHERE true"),
        }
        question.filter(query, by_tag.is_some());
        if by_tag.is_none() {
            question.filter_by_tag(query);
        }
        question.add(&format!(" AND {n} >= "), Value::Number(range.start));
        question.add(&format!(" AND {n} < "), Value::Number(range.end));
        question.add(
            &format!(" ORDER BY {n} DESC LIMIT "),
            Value::Number(at_most as i64),
        );
        question
    }

    /// Asks for those of these rows that are asked for.
    pub(crate) fn among(query: &Query, numbers: Vec<i64>, dialect: Dialect) -> Self {
        let mut question = Self::begin(dialect);
        question.add(
            &format!("FROM reminders r WHERE r.n {}", dialect.among.0),
            Value::Numbers(numbers),
        );
        question.sql.push_str(dialect.among.1);
        question.filter(query, true);
        question.filter_by_tag(query);
        question.sql.push_str(" ORDER BY r.n DESC");
        question
    }

    fn begin(dialect: Dialect) -> Self {
        Self {
            sql: "SELECT r.n, r.body, r.outcome, r.at, r.trail ".to_owned(),
            values: Vec::new(),
            dialect,
        }
    }

    /// Adds the conditions on the rows' columns. The index of the first one is used, unless another
    /// one is already.
    fn filter(&mut self, query: &Query, mut has_index: bool) {
        let mut columns = [
            ("id", &query.id),
            ("user_name", &query.user),
            ("source", &query.source),
            ("outcome", &query.outcome),
        ];
        if has_rare_outcome(query) {
            columns.swap(2, 3);
        }
        for (column, value) in columns {
            let Some(value) = value else { continue };
            let sign = if has_index {
                self.dialect.unindexed
            } else {
                ""
            };
            self.add(&format!(" AND {sign}r.{column} = "), text(value));
            has_index = true;
        }
    }

    fn filter_by_tag(&mut self, query: &Query) {
        if let Some(tag) = &query.tag {
            self.add(
                " AND EXISTS (SELECT 1 FROM tags t WHERE t.n = r.n AND t.tag = ",
                text(tag),
            );
            self.sql.push(')');
        }
    }

    fn add(&mut self, sql: &str, value: Value) {
        self.values.push(value);
        self.sql.push_str(sql);
        self.sql.push(self.dialect.parameter);
        self.sql.push_str(&self.values.len().to_string());
    }
}

/// Returns whether it asks for an outcome that few reminders have.
fn has_rare_outcome(query: &Query) -> bool {
    query
        .outcome
        .as_ref()
        .is_some_and(|outcome| outcome != "delivered")
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

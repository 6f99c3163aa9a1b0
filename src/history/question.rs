//! A query as SQL that one index answers in order, for either database.

use super::Query;
use super::number;

/// What differs between the databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    /// What comes before a parameter's number.
    pub(super) parameter: char,
    /// What keeps a column's index from being used.
    pub(super) unindexed: &'static str,
}

/// A statement's parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
}

/// A statement that gives rows of `n, body, outcome, at, trail`, newest first, and ends only with the last row that matches, but
/// for `contains`.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
    dialect: Dialect,
}

impl Question {
    /// Asks in the order of the index that narrows most: an id names few reminders, a user has fewer than a tag, a tag
    /// fewer than a source. What else is asked for is looked at row by row.
    pub(super) fn new(query: &Query, dialect: Dialect) -> Self {
        let mut question = Self { sql: String::new(), values: Vec::new(), dialect };
        let columns =
            [("id", &query.id), ("user_name", &query.user), ("source", &query.source), ("outcome", &query.outcome)];
        let by_tag = query.id.is_none() && query.user.is_none();
        let n = match &query.tag {
            Some(tag) if by_tag => {
                question.sql.push_str("FROM tags t JOIN reminders r ON r.n = t.n WHERE t.tag = ");
                question.push(Value::Text(tag.clone()));
                "t.n"
            }
            _ => {
                question.sql.push_str("FROM reminders r WHERE true");
                "r.n"
            }
        };
        let mut is_driven = n == "t.n";
        for (column, value) in columns {
            let Some(value) = value else { continue };
            // The index of ids has the source, too.
            let is_unindexed = is_driven && !(column == "source" && query.id.is_some());
            let sign = if is_unindexed { dialect.unindexed } else { "" };
            question.sql.push_str(&format!(" AND {sign}r.{column} = "));
            question.push(Value::Text(value.clone()));
            is_driven = true;
        }
        if let (Some(tag), false) = (&query.tag, by_tag) {
            question.sql.push_str(" AND EXISTS (SELECT 1 FROM tags t WHERE t.n = r.n AND t.tag = ");
            question.push(Value::Text(tag.clone()));
            question.sql.push(')');
        }
        let (from, to) = range(query);
        for (compare, bound) in [(">=", from), ("<", to)] {
            question.sql.push_str(&format!(" AND {n} {compare} "));
            question.push(Value::Number(bound));
        }
        question.sql.insert_str(0, "SELECT r.n, r.body, r.outcome, r.at, r.trail ");
        question.sql.push_str(&format!(" ORDER BY {n} DESC"));
        question
    }

    fn push(&mut self, value: Value) {
        self.values.push(value);
        self.sql.push(self.dialect.parameter);
        self.sql.push_str(&self.values.len().to_string());
    }
}

/// The numbers that a query's times and cursor leave: from the first, up to the second.
fn range(query: &Query) -> (i64, i64) {
    let from = query.from_ms.map_or(0, number::first_of);
    let to = query.to_ms.map_or(i64::MAX, number::first_of);
    let before = query.before.map_or(i64::MAX, |cursor| cursor.0);
    (from, to.min(before))
}

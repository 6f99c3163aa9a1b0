//! Queries: which rows a database is asked for, in which order, and the search index for texts. The
//! same for every database.

pub(crate) mod find;
mod grams;
pub(crate) mod indexing;
pub(crate) mod postings;
pub(crate) mod question;

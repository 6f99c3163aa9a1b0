//! The rows of a history: what a batch of outcomes does to them. The same for every database, and
//! pure.

pub(crate) mod batch;
pub(crate) mod body;
pub(crate) mod number;
pub(crate) mod trail;

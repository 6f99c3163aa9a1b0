//! The rule document of a tag, as operators write it. What its rules do to a reminder is decided
//! elsewhere.

pub mod document;
mod fields;
pub mod problem;

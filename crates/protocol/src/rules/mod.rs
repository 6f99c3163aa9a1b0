//! The rule document of a tag, as operators write it. Other modules apply its rules to reminders.

pub mod document;
mod fields;
pub mod problem;

//! Rules: what happens to a reminder's text because of its tags. Pure.
//!
//! | file | |
//! | --- | --- |
//! | [`document`], [`problem`] | the rule document of a tag, and what can be wrong with it |
//! | [`lint`] | what its author may not have meant |
//! | [`trial`], [`suite`] | what rules make of a text, and tests of it that stand in the document |
//! | [`unicode`], [`words`], [`per_char`] | what Unicode says of characters; where words begin and end |
//! | [`folding`], [`fold`] | makes texts comparable, and remembers where everything came from |
//! | [`finder`], [`vocabulary`] | finds all keywords |
//! | [`pattern`], [`shadow`] | compiles regular expressions that see texts as keywords do |
//! | [`addresses`], [`spans`] | parts of a text that are left alone |
//! | [`engine`] | a compiled document: what it finds in a text |
//! | [`rewrite`] | what becomes of the text |
//!
//! The documents of a reminder's tags apply in the order of the tags; each sees the text as the one
//! before left it.

pub mod addresses;
pub mod engine;
pub mod finder;
pub mod fold;
pub mod folding;
pub mod lint;
pub mod pattern;
pub mod per_char;
#[cfg(any(test, feature = "reference"))]
pub mod reference;
pub mod rewrite;
pub mod shadow;
pub mod spans;
pub mod suite;
pub mod trial;
pub mod unicode;
pub mod vocabulary;
pub mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use bellhop_protocol::reminder::{Field, MAX_REMINDER_BYTES, Mark, MarkAction, Reminder};
pub use bellhop_protocol::rules::{document, problem};
use bellhop_protocol::token::Tag;
use document::Action;
use engine::{Engine, Match, TooManyMatches};
use rewrite::{Text, TooLong};

/// The compiled documents of all tags.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// None where a tag has a document and no version of it can be used.
    engines: BTreeMap<Tag, Option<Arc<Engine>>>,
}

/// The result of the rules for a reminder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It is not delivered.
    Blocked {
        /// The document.
        tag: Tag,
        /// Its rule.
        rule: String,
    },
}

/// The reason why a reminder cannot be processed. It is then refused: no user may see text that a
/// rule would have hidden.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// The tag has a document, and no version of it can be used.
    #[error(
        "the rules of tag `{0}` cannot be used, nor can an earlier version of them; `bellhop doctor` says why"
    )]
    Unusable(Tag),
    /// The rules match without end.
    #[error(transparent)]
    TooManyMatches(#[from] TooManyMatches),
    /// Replacements make it too long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// The most marks on one reminder; the first ones count.
pub const MAX_MARKS: usize = 1_000;

/// One field of a reminder in work.
struct Part {
    field: Field,
    text: Text,
    found: Vec<Match>,
}

impl Rules {
    /// The documents of these tags.
    pub fn new(engines: BTreeMap<Tag, Arc<Engine>>) -> Self {
        Self {
            engines: engines
                .into_iter()
                .map(|(tag, engine)| (tag, Some(engine)))
                .collect(),
        }
    }

    /// Returns the number of tags whose rules apply.
    pub fn usable(&self) -> usize {
        self.engines.values().flatten().count()
    }

    /// Returns the number of tags whose reminders are refused.
    pub fn refused(&self) -> usize {
        self.engines.len() - self.usable()
    }

    /// Returns the rules of a tag, if it has some that can be used.
    pub fn engine(&self, tag: &Tag) -> Option<&Arc<Engine>> {
        self.engines.get(tag)?.as_ref()
    }

    /// Returns the same with another document for a tag, or with none.
    #[must_use]
    pub fn with(mut self, tag: Tag, engine: Option<Arc<Engine>>) -> Self {
        match engine {
            Some(engine) => self.engines.insert(tag, Some(engine)),
            None => self.engines.remove(&tag),
        };
        self
    }

    /// Returns the same with a tag whose reminders are refused, since no version of its document
    /// can be used.
    #[must_use]
    pub fn refusing(mut self, tag: Tag) -> Self {
        self.engines.insert(tag, None);
        self
    }

    /// Does to a reminder what the documents of its tags say.
    ///
    /// # Errors
    /// When it cannot be processed; it may be half done then.
    pub fn apply(&self, reminder: &mut Reminder) -> Result<Verdict, RulesError> {
        let mut documents: Vec<(Tag, &Engine)> = Vec::new();
        for tag in &reminder.tags {
            match self.engines.get(tag) {
                Some(None) => return Err(RulesError::Unusable(tag.clone())),
                Some(Some(engine)) if documents.iter().all(|(other, _)| other != tag) => {
                    documents.push((tag.clone(), engine));
                }
                _ => {}
            }
        }
        if documents.is_empty() {
            return Ok(Verdict::Pass);
        }
        let mut parts = Part::of(reminder);
        let (mut priority, mut is_rewritten) = (None, false);
        for (at, (tag, engine)) in documents.iter().enumerate() {
            for part in &mut parts {
                part.found = engine.find(&part.text.text)?;
            }
            let found = || parts.iter().flat_map(|part| &part.found);
            let rules = engine.rules();
            let action = |found: &Match| &rules[usize::from(found.rule)].action;
            if let Some(block) = found()
                .filter(|found| *action(found) == Action::Block)
                .map(|found| found.rule)
                .min()
            {
                return Ok(Verdict::Blocked {
                    tag: tag.clone(),
                    rule: rules[usize::from(block)].name.clone(),
                });
            }
            let wanted = found().filter_map(|found| match action(found) {
                Action::Priority { with } => Some(*with),
                _ => None,
            });
            priority = priority.max(wanted.max());
            for part in parts.iter_mut().filter(|part| !part.found.is_empty()) {
                part.text
                    .rewrite(engine, at, &part.found, MAX_REMINDER_BYTES)?;
                is_rewritten = true;
            }
        }
        reminder.priority = priority.unwrap_or(reminder.priority);
        reminder
            .lacking
            .take_if(|_| is_rewritten || priority.is_some());
        for part in parts {
            part.finish(reminder, &documents);
        }
        if is_rewritten {
            fit(reminder)?;
        }
        Ok(Verdict::Pass)
    }
}

impl Part {
    fn of(reminder: &mut Reminder) -> Vec<Self> {
        let title = reminder.title.take().map(|title| (Field::Title, title));
        let content = (Field::Content, std::mem::take(&mut reminder.content));
        let part = |(field, text)| Self {
            field,
            text: Text::new(text),
            found: Vec::new(),
        };
        title.into_iter().chain([content]).map(part).collect()
    }

    fn finish(self, reminder: &mut Reminder, documents: &[(Tag, &Engine)]) {
        let Text { text, marks } = self.text;
        // Offsets in characters: marks are in the order of their starts, so the text is counted
        // once.
        let (mut bytes, mut chars) = (0, 0);
        for mark in marks {
            chars += text[bytes..mark.span.start].chars().count();
            bytes = mark.span.start;
            let (tag, engine) = &documents[mark.document];
            let rule = &engine.rules()[usize::from(mark.rule)];
            let (action, href) = match &rule.action {
                Action::Link { href } => (MarkAction::Link, Some(href.clone())),
                _ => (MarkAction::Highlight, None),
            };
            reminder.marks.push(Mark {
                tag: tag.clone(),
                rule: rule.name.clone(),
                field: self.field,
                start: chars,
                end: chars + text[mark.span].chars().count(),
                action,
                href,
            });
        }
        match self.field {
            Field::Title => reminder.title = Some(text),
            Field::Content => reminder.content = text,
        }
    }
}

/// Marks give way to text: as many stay as fit.
fn fit(reminder: &mut Reminder) -> Result<(), TooLong> {
    reminder.marks.truncate(MAX_MARKS);
    while reminder.to_json().len() > MAX_REMINDER_BYTES {
        if reminder.marks.is_empty() {
            return Err(TooLong(MAX_REMINDER_BYTES));
        }
        reminder.marks.truncate(reminder.marks.len() / 2);
    }
    Ok(())
}

#[cfg(test)]
mod tests;

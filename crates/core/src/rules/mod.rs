//! Rules: what happens to a reminder's text because of its tags. Pure.
//!
//! | file | |
//! | --- | --- |
//! | [`document`], [`problem`] | the rule document of a tag, and what can be wrong with it |
//! | [`lint`], [`fields`] | what its author may not have meant |
//! | [`trial`], [`suite`] | what rules make of a text, and tests of it that stand in the document |
//! | [`unicode`], [`fold`] | makes texts comparable, and remembers where everything came from |
//! | [`finder`], [`vocabulary`] | finds all keywords |
//! | [`engine`] | a compiled document: what it finds in a text |
//! | [`rewrite`] | what becomes of the text |
//!
//! The documents of a reminder's tags apply in the order of the tags; each sees the text as the one before left it.

pub mod document;
pub mod engine;
pub mod fields;
pub mod finder;
pub mod fold;
pub mod lint;
pub mod problem;
#[cfg(any(test, feature = "reference"))]
pub mod reference;
pub mod rewrite;
pub mod suite;
pub mod trial;
pub mod unicode;
pub mod vocabulary;

use std::collections::BTreeMap;
use std::sync::Arc;

use bellhop_protocol::reminder::{Field, MAX_REMINDER_BYTES, Mark, MarkAction, Reminder};
use bellhop_protocol::token::Tag;
use document::Action;
use engine::{Engine, Match, TooManyMatches};
use rewrite::{Text, TooLong};

/// The compiled documents of all tags.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    engines: BTreeMap<Tag, Arc<Engine>>,
}

/// What the rules leave of a reminder.
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

/// Why a reminder cannot be processed. It is refused then: nobody may see what a rule would have hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
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
        Self { engines }
    }

    /// How many tags have one.
    pub fn len(&self) -> usize {
        self.engines.len()
    }

    /// Whether no tag has one.
    pub fn is_empty(&self) -> bool {
        self.engines.is_empty()
    }

    /// The document of a tag.
    pub fn engine(&self, tag: &Tag) -> Option<&Arc<Engine>> {
        self.engines.get(tag)
    }

    /// The same with another document for a tag, or with none.
    #[must_use]
    pub fn with(mut self, tag: Tag, engine: Option<Arc<Engine>>) -> Self {
        match engine {
            Some(engine) => self.engines.insert(tag, engine),
            None => self.engines.remove(&tag),
        };
        self
    }

    /// Does to a reminder what the documents of its tags say.
    ///
    /// # Errors
    /// When it cannot be processed; it may be half done then.
    pub fn apply(&self, reminder: &mut Reminder) -> Result<Verdict, RulesError> {
        let mut documents: Vec<(Tag, &Engine)> = Vec::new();
        for tag in &reminder.tags {
            let is_new = documents.iter().all(|(other, _)| other != tag);
            documents.extend(self.engines.get(tag).filter(|_| is_new).map(|engine| (tag.clone(), &**engine)));
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
            if let Some(block) = found().filter(|found| *action(found) == Action::Block).map(|found| found.rule).min() {
                return Ok(Verdict::Blocked { tag: tag.clone(), rule: rules[usize::from(block)].name.clone() });
            }
            let wanted = found().filter_map(|found| match action(found) {
                Action::Priority { with } => Some(*with),
                _ => None,
            });
            priority = priority.max(wanted.max());
            for part in parts.iter_mut().filter(|part| !part.found.is_empty()) {
                part.text.rewrite(engine, at, &part.found, MAX_REMINDER_BYTES)?;
                is_rewritten = true;
            }
        }
        reminder.priority = priority.unwrap_or(reminder.priority);
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
        let part = |(field, text)| Self { field, text: Text::new(text), found: Vec::new() };
        title.into_iter().chain([content]).map(part).collect()
    }

    fn finish(self, reminder: &mut Reminder, documents: &[(Tag, &Engine)]) {
        let Text { text, marks } = self.text;
        // Offsets in characters: marks are in the order of their starts, so the text is counted once.
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

//! The effect of a batch of outcomes on a history: the part that is the same for every database,
//! and pure.
//!
//! The entries of one reminder become one [`Draft`]; the database says which of them it has
//! [`Stored`] already, and what comes out are rows to insert and rows to change. Because a trail
//! has an order of its own and holds each step once, a batch that is written again, or split
//! otherwise, changes nothing.

use std::collections::{BTreeSet, HashMap};

use serde_json::json;

use super::body::Body;
use super::number::{self, Numbers};
use super::trail::{Step, Trail};
use crate::error::Problem;
use crate::text::storable;
use crate::{Entry, Unwritten};

/// The identity of a reminder: entries with the same one belong together. One id may go to many
/// users, and may be used again later.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) source: String,
    pub(crate) id: String,
    pub(crate) user: Option<String>,
    pub(crate) published_ms: i64,
}

/// All entries of one reminder.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) key: Key,
    pub(crate) set: String,
    trail: Trail,
    reminder: Option<String>,
}

/// A reminder that the history has.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) n: i64,
    pub(crate) body: String,
    pub(crate) trail: String,
}

/// A reminder that is new to the history.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) n: i64,
    pub(crate) draft: Draft,
    pub(crate) body: String,
    /// The body is the reminder, and does not only stand for it.
    pub(crate) is_known: bool,
}

/// A reminder of which more is known than before.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) n: i64,
    pub(crate) trail: Trail,
    /// The reminder, if it was not known before.
    pub(crate) body: Option<String>,
}

/// The reminders of a batch, each once, in the order in which they were first named.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) drafts: Vec<Draft>,
}

impl Batch {
    pub(crate) fn new(entries: Vec<Entry>) -> Self {
        let mut places: HashMap<Key, usize> = HashMap::with_capacity(entries.len());
        let mut drafts: Vec<Draft> = Vec::with_capacity(entries.len());
        for entry in entries {
            let Entry {
                source,
                id,
                set,
                user,
                published_ms,
                outcome,
                at_ms,
                step,
                reminder,
            } = entry;
            let (source, id, user) = (storable(source), storable(id), user.map(storable));
            let key = Key {
                source,
                id,
                user,
                published_ms: number::published_ms(number::first_of(published_ms)),
            };
            let place = *places.entry(key.clone()).or_insert(drafts.len());
            if place == drafts.len() {
                drafts.push(Draft {
                    key,
                    set,
                    trail: Trail::default(),
                    reminder: None,
                });
            }
            let draft = &mut drafts[place];
            draft.trail.add(Step::new(at_ms, outcome, step));
            draft.reminder = draft.reminder.take().or(reminder);
        }
        Self { drafts }
    }

    /// Everybody who is named, as whom a reminder was for or as who got it: an erasure may be about
    /// them.
    pub(crate) fn users(&self) -> BTreeSet<String> {
        let meant = self
            .drafts
            .iter()
            .filter_map(|draft| draft.key.user.clone());
        let got = self
            .drafts
            .iter()
            .flat_map(|draft| draft.trail.steps().iter().filter_map(Step::to));
        meant.chain(got).collect()
    }

    /// Drops what was published for a user before that user was erased, and forgets who got
    /// something before.
    pub(crate) fn erase(&mut self, erased_at_ms: &HashMap<String, i64>) -> Vec<Unwritten> {
        if erased_at_ms.is_empty() {
            return Vec::new();
        }
        let mut erased = Vec::new();
        self.drafts.retain_mut(|draft| {
            let user = draft.key.user.as_ref();
            let at = user.and_then(|user| erased_at_ms.get(user));
            if at.is_some_and(|at| draft.key.published_ms <= *at) {
                erased.extend(draft.take_erased());
                return false;
            }
            for (user, at_ms) in erased_at_ms {
                draft.trail.blank_to(user, *at_ms);
            }
            true
        });
        erased
    }

    /// Returns the rows to insert and to change, given the stored rows and the used numbers.
    ///
    /// # Errors
    /// When what is stored cannot be read, or a millisecond has no number left.
    pub(crate) fn merge(
        self,
        mut stored: HashMap<Key, Stored>,
        mut numbers: Numbers,
    ) -> Result<(Vec<New>, Vec<Changed>), Problem> {
        let (mut new, mut changed) = (Vec::with_capacity(self.drafts.len()), Vec::new());
        for mut draft in self.drafts {
            match stored.remove(&draft.key) {
                Some(stored) => changed.extend(draft.added_to(stored)?),
                None => {
                    let n = numbers.next(draft.key.published_ms);
                    let n = n.ok_or_else(|| {
                        Problem::broken("more than 2,097,152 reminders in one millisecond")
                    })?;
                    let reminder = draft.reminder.take();
                    let is_known = reminder.is_some();
                    let body = reminder.unwrap_or_else(|| draft.stand_in());
                    new.push(New {
                        n,
                        draft,
                        body,
                        is_known,
                    });
                }
            }
        }
        new.sort_unstable_by_key(|new| new.n);
        Ok((new, changed))
    }
}

impl Draft {
    pub(crate) fn trail(&self) -> &Trail {
        &self.trail
    }

    /// Returns the body of a reminder whose content is not known: it was refused, or its first
    /// outcome is still to come.
    fn stand_in(&self) -> String {
        let Key {
            source,
            id,
            user,
            published_ms,
        } = &self.key;
        let published_at = jiff::Timestamp::from_millisecond(*published_ms).unwrap_or_default();
        json!({ "id": id, "source": source, "set": self.set, "user": user, "published_at": published_at })
            .to_string()
    }

    fn take_erased(&mut self) -> impl Iterator<Item = Unwritten> {
        let steps = std::mem::take(&mut self.trail).into_steps().into_iter();
        steps.map(|step| Unwritten {
            user: self.key.user.clone().unwrap_or_default(),
            source: self.key.source.clone(),
            id: self.key.id.clone(),
            published_ms: self.key.published_ms,
            outcome: step.outcome,
        })
    }

    /// Returns the additions to a stored row; none if it has everything.
    fn added_to(self, stored: Stored) -> Result<Option<Changed>, Problem> {
        let mut trail = Trail::stored(stored.n, &stored.trail)?;
        // All of them are added, whether one was new or not.
        let is_longer = self
            .trail
            .into_steps()
            .into_iter()
            .fold(false, |any, step| trail.add(step) | any);
        let is_known = || Body::read(&stored.body).content.is_some();
        let body = self.reminder.filter(|_| !is_known());
        Ok((is_longer || body.is_some()).then_some(Changed {
            n: stored.n,
            trail,
            body,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, at_ms: i64, outcome: &str) -> Entry {
        Entry {
            source: "billing".into(),
            id: id.into(),
            set: "s".into(),
            user: Some("alice".into()),
            published_ms: 5,
            outcome: outcome.into(),
            at_ms,
            step: format!(r#"{{"outcome":"{outcome}","at":"1970-01-01T00:00:00.{at_ms:03}Z"}}"#),
            reminder: None,
        }
    }

    #[test]
    fn the_entries_of_a_reminder_become_one_row() {
        let batch = Batch::new(vec![
            entry("b", 9, "delivered"),
            entry("a", 7, "delivered"),
            entry("b", 8, "parked"),
        ]);
        let (new, changed) = batch.merge(HashMap::new(), Numbers::default()).unwrap();
        assert!(changed.is_empty());
        let rows: Vec<_> = new
            .iter()
            .map(|new| (new.n - number::first_of(5), &*new.draft.key.id))
            .collect();
        assert_eq!(rows, [(0, "b"), (1, "a")]);
        assert_eq!(new[0].draft.trail().steps().len(), 2);
        assert_eq!(new[0].draft.trail().latest(), ("delivered", 9));
        assert!(
            new[0]
                .body
                .contains(r#""published_at":"1970-01-01T00:00:00.005Z""#),
            "{}",
            new[0].body
        );
    }

    #[test]
    fn one_id_for_two_users_becomes_two_rows() {
        let of_bob = Entry {
            user: Some("bob".into()),
            ..entry("a", 8, "parked")
        };
        let batch = Batch::new(vec![entry("a", 7, "delivered"), of_bob]);
        let (new, _) = batch.merge(HashMap::new(), Numbers::default()).unwrap();
        let users: Vec<_> = new
            .iter()
            .map(|new| new.draft.key.user.as_deref())
            .collect();
        assert_eq!(users, [Some("alice"), Some("bob")]);
    }

    #[test]
    fn stored_rows_change_only_by_new_outcomes() {
        let stored = |trail: &str| {
            let key = Key {
                source: "billing".into(),
                id: "b".into(),
                user: Some("alice".into()),
                published_ms: 5,
            };
            HashMap::from([(
                key,
                Stored {
                    n: 77,
                    body: "{}".into(),
                    trail: trail.into(),
                },
            )])
        };
        let parked = entry("b", 8, "parked");
        let trail = format!("[{}]", parked.step);
        let again = Batch::new(vec![parked.clone()])
            .merge(stored(&trail), Numbers::default())
            .unwrap();
        assert!(again.0.is_empty() && again.1.is_empty());
        let with_reminder = Entry {
            reminder: Some(r#"{"content":"x"}"#.into()),
            ..parked
        };
        let (_, changed) = Batch::new(vec![with_reminder])
            .merge(stored(&trail), Numbers::default())
            .unwrap();
        assert_eq!(
            (changed[0].n, changed[0].body.as_deref()),
            (77, Some(r#"{"content":"x"}"#))
        );
        let broken =
            Batch::new(vec![entry("b", 8, "parked")]).merge(stored("[{}]"), Numbers::default());
        assert!(broken.unwrap_err().text.contains("row 77"));
    }

    #[test]
    fn reminders_published_before_erasure_are_dropped() {
        let mut batch = Batch::new(vec![entry("a", 7, "parked")]);
        assert_eq!(batch.users(), BTreeSet::from(["alice".to_owned()]));
        assert!(
            batch
                .erase(&HashMap::from([("alice".to_owned(), 4)]))
                .is_empty()
        );
        let erased = batch.erase(&HashMap::from([("alice".to_owned(), 5)]));
        assert_eq!(
            (erased.len(), &*erased[0].id, &*erased[0].outcome),
            (1, "a", "parked")
        );
        assert!(batch.drafts.is_empty());
    }
}

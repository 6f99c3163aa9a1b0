//! A flow of numbered reminders through a crowd of users, for tests in which something happens in
//! the middle of it.

use std::ops::Range;

use serde_json::Value;

use super::{LATER, World, numbers, reminder};

/// Users of the crowd; reminder `n` is for the user `n` modulo this.
pub(crate) const CROWD: usize = 50;
/// Reminders of one set.
const SET: usize = 50;

fn user(n: usize) -> String {
    format!("user-{}", n % CROWD)
}

/// The reminder of this number.
pub(crate) fn nth(number: impl AsRef<str>) -> Value {
    let user = user(number.as_ref().parse().unwrap());
    reminder(number, &user)
}

impl World {
    /// App servers for the crowd: each user is connected to one of two.
    pub(crate) async fn crowd(&self) {
        for (n, name) in ["app-1", "app-2"].into_iter().enumerate() {
            let users: Vec<_> = (n..CROWD).step_by(2).map(user).collect();
            self.app(name, &users.iter().map(String::as_str).collect::<Vec<_>>())
                .await;
        }
    }

    /// Publishes these reminders, while not more than `ahead` are under way.
    pub(crate) async fn flow(&self, range: Range<usize>, ahead: usize) {
        for begin in range.clone().step_by(SET) {
            self.taken_so_far(begin.saturating_sub(ahead)).await;
            let set = numbers(begin..range.end.min(begin + SET));
            self.publish_surely("billing", set.iter().map(nth).collect())
                .await;
        }
    }

    /// Waits until app servers have taken this many reminders.
    pub(crate) async fn taken_so_far(&self, count: usize) {
        self.within(LATER, &format!("{count} are taken"), async || {
            match self.takes().len() {
                taken if taken >= count => Ok(()),
                taken => Err(format!("{taken} are")),
            }
        })
        .await;
    }

    /// Waits for the whole flow, and checks it: everything arrived, each user's reminders in order,
    /// and each has one final outcome.
    pub(crate) async fn complete(&self, total: usize) {
        self.taken(&numbers(0..total)).await;
        self.settle().await;
        for n in 0..CROWD {
            assert_eq!(
                self.order(&user(n)),
                numbers(0..total)
                    .into_iter()
                    .skip(n)
                    .step_by(CROWD)
                    .collect::<Vec<_>>()
            );
        }
    }
}

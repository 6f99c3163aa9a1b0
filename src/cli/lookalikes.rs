//! Finds users whose names look alike. Each is a user of its own, so reminders published for one of
//! them wait while the other is connected.

use std::collections::BTreeMap;

use serde::Serialize;

use super::CliError;
use super::mailbox::for_each_mailbox;
use super::output::plural;
use super::survey::Routes;
use crate::lookalike::common_form;
use crate::nats::names::bucket_stream;
use crate::nats::{During, Nats};
use crate::token::UserId;

/// The users that NATS knows, by the common form of their names.
#[derive(Debug, Default)]
pub(super) struct Users(BTreeMap<String, BTreeMap<UserId, Known>>);

/// The known facts about a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Known {
    /// True if the user has a route.
    pub(super) route: bool,
    /// The number of reminders that wait in the user's mailbox.
    pub(super) parked: usize,
}

/// A user whose name looks like that of another one.
#[derive(Debug, Serialize)]
pub(super) struct Lookalike<'a> {
    pub(super) user: &'a UserId,
    #[serde(flatten)]
    pub(super) known: Known,
}

impl Users {
    /// Reads the users that have a route or a mailbox. Returns none if there are more than
    /// [`Routes::MOST`] of either.
    ///
    /// # Errors
    /// When JetStream does not answer, or this client has no permission to read.
    pub(super) async fn read(nats: &Nats) -> Result<Option<Self>, CliError> {
        let routes = bucket_stream(&nats.names.routes_bucket());
        for stream in [routes, nats.names.parked_stream()] {
            let action = || format!("count the subjects of {stream}");
            let handle = nats
                .jetstream
                .get_stream(&stream)
                .await
                .during_with(action)?;
            if handle.cached_info().state.subjects_count > Routes::MOST {
                return Ok(None);
            }
        }
        let mut users = Self::default();
        Routes::read_with(nats, |user| users.known(user).route = true).await?;
        for_each_mailbox(nats, &nats.names.all_mailboxes(), |mailbox| {
            users.known(mailbox.user.0).parked = mailbox.count;
        })
        .await?;
        Ok(Some(users))
    }

    fn known(&mut self, user: UserId) -> &mut Known {
        let form = common_form(user.as_str());
        self.0.entry(form).or_default().entry(user).or_default()
    }

    /// Returns the users whose names look like that of `user`, if `user` has no route.
    pub(super) fn like<'a>(&'a self, user: &UserId) -> Vec<Lookalike<'a>> {
        let Some(alike) = self.0.get(&common_form(user.as_str())) else {
            return Vec::new();
        };
        if alike.get(user).is_some_and(|known| known.route) {
            return Vec::new();
        }
        let others = alike.iter().filter(|(other, _)| *other != user);
        others
            .map(|(user, known)| Lookalike {
                user,
                known: *known,
            })
            .collect()
    }

    /// Returns users with parked reminders and no route, each with a user who has a route and whose
    /// name looks the same.
    pub(super) fn waiting_beside(&self) -> Vec<(&UserId, &UserId)> {
        let pairs = self.0.values().flat_map(|alike| {
            let with_route = alike.iter().find(|(_, known)| known.route);
            let waiting = alike
                .iter()
                .filter(|(_, known)| !known.route && known.parked > 0);
            with_route.into_iter().flat_map(move |(there, _)| {
                let waiting = waiting.clone();
                waiting.map(move |(user, _)| (user, there))
            })
        });
        pairs.collect()
    }
}

impl Lookalike<'_> {
    /// Returns a sentence about both users.
    pub(super) fn hint(&self, user: &UserId) -> String {
        let Known { route, parked } = self.known;
        let route = if route { "a route" } else { "no route" };
        let parked = plural(parked, "parked reminder");
        let (user, other) = (shown(user), shown(self.user));
        format!("{other}, with {parked} and {route}, is another user whose name looks like {user}")
    }
}

/// Returns a name with its token where the token shows what differs.
pub(super) fn shown(user: &UserId) -> String {
    match user.as_str().is_ascii() {
        true => user.to_string(),
        false => format!("{user} ({})", user.escaped()),
    }
}

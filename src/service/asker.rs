//! The sender of a query, and the users about whom it may ask. NATS says it by the subject, where
//! an app server's account imports queries under its own instance's name.

use std::fmt;

use serde::Deserialize;

use super::routes::is_at;
use crate::nats::{Names, Nats, NatsError};
use crate::token::{InstanceName, NameError, UserId};

/// The sender of a query.
pub(super) enum Asker {
    /// A program that may ask about everybody.
    Anybody,
    /// An app server, which may ask about users who have a route there.
    Instance(InstanceName),
}

impl Asker {
    /// Reads the subject of a request.
    ///
    /// # Errors
    /// When an instance cannot have the name that the subject says.
    pub(super) fn of(names: &Names, subject: &str) -> Result<Self, NameError> {
        match names.asking_instance(subject) {
            None => Ok(Self::Anybody),
            Some(token) => InstanceName::from_token(token).map(Self::Instance),
        }
    }

    /// Returns whether it may ask about everybody at once.
    pub(super) fn may_know_all(&self) -> bool {
        matches!(self, Self::Anybody)
    }

    /// Returns whether it may know of a user. JetStream's leader is asked, so a route counts as
    /// soon as it is stored.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub(super) async fn may_know_of(&self, nats: &Nats, user: &str) -> Result<bool, NatsError> {
        match (self, user.parse::<UserId>()) {
            (Self::Anybody, _) => Ok(true),
            (Self::Instance(instance), Ok(user)) => is_at(nats, &user, instance).await,
            (Self::Instance(_), Err(_)) => Ok(false),
        }
    }

    /// Returns whether it may know of a reminder. A refused reminder may have no user.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub(super) async fn may_know_reminder(
        &self,
        nats: &Nats,
        reminder: &str,
    ) -> Result<bool, NatsError> {
        #[derive(Deserialize)]
        struct Whose {
            user: Option<String>,
        }
        if self.may_know_all() {
            return Ok(true);
        }
        match serde_json::from_str(reminder) {
            Ok(Whose { user: Some(user) }) => self.may_know_of(nats, &user).await,
            _ => Ok(false),
        }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => f.write_str("users who may ask about everyone"),
            Self::Instance(instance) => write!(f, "app server `{instance}`"),
        }
    }
}

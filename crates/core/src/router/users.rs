//! The users a partition knows, by name and by number.
//!
//! Names come in with inputs and go out with actions. In between a user is a number, which is
//! copied freely and finds the user without a hash and without comparing names. A million users of
//! one route each are what a partition's memory goes to, so they lie in a slab, and what doubles
//! when it is full, the table of names, has the numbers alone.
//!
//! A number is given again when its user was forgotten, so no user may be mistaken for the previous
//! one. References to a user keep it from being forgotten (`User::is_forgettable`): its routes and
//! mailbox, a timer, a place in a queue for reads, a delivery or park under way. Two things may
//! outlive it, and are looked at before they count: a ticket at an instance by its turn, which is
//! no other user's; and a heartbeat's answer by the name that was asked about.

use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::keys::UserKey;
use super::slab::Slab;
use super::user::User;
use bellhop_protocol::token::UserId;

/// The users of a partition.
#[derive(Debug)]
pub struct Users {
    users: Slab<User>,
    numbers: HashTable<UserKey>,
    hasher: DefaultHashBuilder,
}

impl Users {
    /// No user.
    pub(super) fn new() -> Self {
        Self {
            users: Slab::new(),
            numbers: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// The number of a user, who is known from now on.
    pub fn admit(&mut self, name: UserId) -> UserKey {
        let Self {
            users,
            numbers,
            hasher,
        } = self;
        let hash = hasher.hash_one(&name);
        let is_it = |number: &UserKey| users[number.0].name == name;
        match numbers.entry(hash, is_it, |number| hasher.hash_one(&users[number.0].name)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                let number = UserKey(users.insert(User::new(name)));
                place.insert(number);
                number
            }
        }
    }

    /// The number of a user, if it is known.
    pub fn find(&self, name: &UserId) -> Option<UserKey> {
        let is_it = |number: &UserKey| self[*number].name == *name;
        self.numbers
            .find(self.hasher.hash_one(name), is_it)
            .copied()
    }

    /// Forgets a user. Its number may be another user's next.
    pub fn forget(&mut self, number: UserKey) {
        let Some(user) = self.users.remove(number.0) else {
            return;
        };
        let hash = self.hasher.hash_one(&user.name);
        if let Ok(entry) = self.numbers.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
    }

    /// The user with this number, unless it was forgotten.
    pub fn get(&self, number: UserKey) -> Option<&User> {
        self.users.get(number.0)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, number: UserKey) -> Option<&mut User> {
        self.users.get_mut(number.0)
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (UserKey, &User)> {
        self.users
            .iter()
            .map(|(number, user)| (UserKey(number), user))
    }

    /// No user is known.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

impl Index<UserKey> for Users {
    type Output = User;

    fn index(&self, number: UserKey) -> &User {
        &self.users[number.0]
    }
}

impl IndexMut<UserKey> for Users {
    fn index_mut(&mut self, number: UserKey) -> &mut User {
        &mut self.users[number.0]
    }
}

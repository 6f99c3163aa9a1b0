//! Until when a member's roles are its own.
//!
//! Others may take them when they have not heard of the member for its TTL. The clock goes on while a process stands
//! still, so one that wakes up late knows it before it does anything. When it takes part again a new *term* begins, and
//! what was handed in during an earlier one is void: a successor has decided about it meanwhile.

use std::time::{Duration, Instant};

use tokio::sync::watch;

#[derive(Debug, Clone, Copy)]
struct State {
    term: u64,
    /// When others last heard of this member in this term.
    heard: Option<Instant>,
}

/// Keeps the lease: belongs to whoever speaks for the member.
#[derive(Debug)]
pub struct Keeper {
    state: watch::Sender<State>,
}

/// Tells whether the lease holds.
#[derive(Debug, Clone)]
pub struct Lease {
    state: watch::Receiver<State>,
    ttl: Duration,
}

/// A lease that has not begun.
pub fn new(ttl: Duration) -> (Keeper, Lease) {
    let (sender, state) = watch::channel(State { term: 0, heard: None });
    (Keeper { state: sender }, Lease { state, ttl })
}

impl Keeper {
    /// A new term begins now.
    pub fn begin(&self) {
        self.state.send_modify(|state| *state = State { term: state.term + 1, heard: Some(Instant::now()) });
    }

    /// Others have heard of this member.
    pub fn renew(&self) {
        self.state.send_modify(|state| state.heard = state.heard.map(|_| Instant::now()));
    }

    /// The term ends now.
    pub fn end(&self) {
        self.state.send_modify(|state| state.heard = None);
    }
}

impl Lease {
    /// The term's number.
    pub fn term(&self) -> u64 {
        self.state.borrow().term
    }

    /// Others may hold by now what this member held.
    pub fn is_over(&self) -> bool {
        self.state.borrow().heard.is_none_or(|at| at.elapsed() > self.ttl)
    }

    /// What was decided in this term is still this member's to decide.
    pub fn is_current(&self, term: u64) -> bool {
        self.term() == term && !self.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_by_time_or_by_word_and_begins_a_new_term() {
        let (keeper, lease) = new(Duration::from_millis(20));
        assert!(lease.is_over());
        keeper.renew();
        assert!(lease.is_over(), "only a new term begins it");
        keeper.begin();
        let term = lease.term();
        assert!(lease.is_current(term));
        while !lease.is_over() {
            std::thread::yield_now();
        }
        assert!(!lease.is_current(term));
        keeper.begin();
        assert!(!lease.is_current(term) && lease.is_current(lease.term()));
        keeper.end();
        assert!(lease.is_over());
    }
}

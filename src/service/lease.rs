//! Until when a member's roles are its own.
//!
//! Others may take them when they have not heard of the member for its TTL. The clock goes on while
//! a process stands still, so one that wakes up late knows it before it does anything. When it
//! takes part again a new *term* begins, and what was handed in during an earlier one is void: a
//! successor has decided about it meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

#[derive(Debug, Clone, Copy)]
struct State {
    term: u64,
    /// Time at which the last record of this term that others have received was sent.
    heard: Option<Instant>,
}

/// Keeps the lease: belongs to the task that speaks for the member.
#[derive(Debug)]
pub struct LeaseRenewer {
    state: Arc<watch::Sender<State>>,
    ttl: Duration,
}

/// The lease of this member, as other tasks see it.
#[derive(Debug, Clone)]
pub struct Lease {
    state: Arc<watch::Sender<State>>,
    ttl: Duration,
}

/// A lease that has not begun.
pub fn new(ttl: Duration) -> (LeaseRenewer, Lease) {
    let (state, _) = watch::channel(State {
        term: 0,
        heard: None,
    });
    let state = Arc::new(state);
    let renewer = LeaseRenewer {
        state: state.clone(),
        ttl,
    };
    (renewer, Lease { state, ttl })
}

impl State {
    fn is_over(&self, now: Instant, ttl: Duration) -> bool {
        self.heard
            .is_none_or(|at| now.saturating_duration_since(at) > ttl)
    }
}

impl LeaseRenewer {
    /// A new term begins now.
    pub fn begin(&self) {
        self.state.send_modify(|state| {
            *state = State {
                term: state.term + 1,
                heard: Some(Instant::now()),
            }
        });
    }

    /// Renews the lease, since others have heard a word that was sent at `sent`. They count from
    /// when they heard it, which may be long before its answer came. A lease that is over stays so:
    /// others may hold by now what this member held.
    pub fn renew(&self, sent: Instant, now: Instant) {
        self.state.send_if_modified(|state| {
            let is_newer = !state.is_over(now, self.ttl) && state.heard < Some(sent);
            if is_newer {
                state.heard = Some(sent);
            }
            is_newer
        });
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
        self.state.borrow().is_over(Instant::now(), self.ttl)
    }

    /// Ends this term, if it is not over yet: another member has taken over what this one held.
    pub fn end(&self, term: u64) {
        self.state.send_if_modified(|state| {
            let is_it = state.term == term;
            if is_it {
                state.heard = None;
            }
            is_it
        });
    }

    /// Returns true if a decision of this term is still this member's to make.
    pub fn is_current(&self, term: u64) -> bool {
        self.term() == term && !self.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_lease_begins_a_new_term() {
        let (renewer, lease) = new(Duration::from_millis(20));
        assert!(lease.is_over());
        renewer.renew(Instant::now(), Instant::now());
        assert!(lease.is_over(), "only a new term begins it");
        renewer.begin();
        let term = lease.term();
        assert!(lease.is_current(term));
        while !lease.is_over() {
            std::thread::yield_now();
        }
        assert!(!lease.is_current(term));
        renewer.begin();
        assert!(!lease.is_current(term) && lease.is_current(lease.term()));
        renewer.end();
        assert!(lease.is_over());
    }

    #[test]
    fn lease_begins_when_its_record_was_sent() {
        let ttl = Duration::from_secs(10);
        let (renewer, lease) = new(ttl);
        renewer.begin();
        let begun = lease.state.borrow().heard.expect("it has begun");
        let at = |seconds| begun + Duration::from_secs(seconds);
        renewer.renew(at(4), at(9));
        assert!(!lease.state.borrow().is_over(at(14), ttl));
        assert!(
            lease.state.borrow().is_over(at(15), ttl),
            "ten seconds after the word, not after its answer"
        );
        renewer.renew(at(2), at(9));
        assert!(
            !lease.state.borrow().is_over(at(14), ttl),
            "an earlier word shortens nothing"
        );
    }

    #[test]
    fn a_lease_that_is_over_is_not_renewed() {
        let (renewer, lease) = new(Duration::from_secs(10));
        renewer.begin();
        let begun = lease.state.borrow().heard.expect("it has begun");
        let at = |seconds| begun + Duration::from_secs(seconds);
        renewer.renew(at(9), at(11));
        assert_eq!(
            lease.state.borrow().heard,
            Some(begun),
            "its answer came too late"
        );
    }
}

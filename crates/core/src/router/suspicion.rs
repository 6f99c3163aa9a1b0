//! Reminders of a user that an instance may be unable to read.
//!
//! A request that was not answered makes the user's reminders in it suspect. They go alone, then
//! half of them, and so on, until one reminder is left. An accepted reminder is no longer suspect.
//! While a suspicion lasts, the user's later reminders wait behind it.

use std::num::NonZeroUsize;

/// That the first reminders of a user have one among them which an instance cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspicion {
    /// Number of suspect reminders, from the first.
    among: NonZeroUsize,
    /// Maximum number of them in one request.
    most: NonZeroUsize,
    /// Number of unanswered attempts to deliver the first one alone.
    tries: u32,
}

impl Suspicion {
    /// The first `among` reminders were in a request that was not answered, with those of other
    /// users.
    pub fn new(among: NonZeroUsize) -> Self {
        Self {
            among,
            most: among,
            tries: 0,
        }
    }

    /// Returns the maximum number of reminders in one request.
    pub fn most(&self) -> usize {
        self.most.get()
    }

    /// Returns the number of unanswered attempts to deliver one reminder alone.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// The first `sent` reminders, in a request of their own, were not answered.
    pub fn confirmed(&mut self, sent: NonZeroUsize) {
        self.tries = if sent == NonZeroUsize::MIN {
            self.tries.saturating_add(1)
        } else {
            0
        };
        self.among = sent;
        self.most = half(sent);
    }

    /// The first `accepted` reminders were accepted. Returns what of the suspicion is left.
    pub fn relieved(self, accepted: usize) -> Option<Self> {
        let among = NonZeroUsize::new(self.among.get().saturating_sub(accepted))?;
        match accepted {
            0 => Some(self),
            _ => Some(Self {
                among,
                most: half(among),
                tries: 0,
            }),
        }
    }
}

/// Half of them, and one at least.
fn half(of: NonZeroUsize) -> NonZeroUsize {
    NonZeroUsize::new(of.get() / 2).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `count` reminders of which the one at `bad` is never answered. Returns how many went
    /// unanswered until it was alone.
    fn find(count: usize, bad: usize) -> usize {
        let mut suspicion = Suspicion::new(NonZeroUsize::new(count).unwrap());
        let (mut first, mut unanswered) = (0, 1);
        while suspicion.tries() == 0 {
            let sent = suspicion.most();
            if (first..first + sent).contains(&bad) {
                suspicion.confirmed(NonZeroUsize::new(sent).unwrap());
                unanswered += 1;
            } else {
                suspicion = suspicion.relieved(sent).unwrap();
                first += sent;
            }
        }
        assert_eq!(first, bad, "the one that is left is the bad one");
        unanswered
    }

    #[test]
    fn one_bad_reminder_is_found_by_halving() {
        for bad in 0..300 {
            assert!(find(300, bad) <= 11, "{bad}");
        }
        assert_eq!(find(1, 0), 2);
    }

    #[test]
    fn accepted_reminder_is_cleared_of_suspicion() {
        let suspicion = Suspicion::new(NonZeroUsize::new(3).unwrap());
        assert_eq!(suspicion.clone().relieved(3), None);
        assert_eq!(
            suspicion.clone().relieved(5),
            None,
            "what came later was accepted, too"
        );
        assert_eq!(
            suspicion.clone().relieved(0),
            Some(suspicion),
            "a refusal says nothing"
        );
    }
}

//! Reminders that an instance may be unable to read. An unanswered reminder goes alone, less and
//! less often, and keeps no other user waiting; a single reminder that is not answered again and
//! again is reported.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::Router;
use crate::router::instance_queue::grown;
use crate::router::keys::UserKey;
use crate::router::suspicion::Suspicion;
use crate::router::{HELD_BACK_AFTER, HeldBack, Instance, Now};

impl Router {
    /// The first `sent` of what waits was not answered.
    pub(super) fn suspect(
        &mut self,
        now: Now,
        user: UserKey,
        sent: NonZeroUsize,
        instance: Arc<Instance>,
    ) {
        let backoff = self.settings.instance_backoff;
        let work = self.users[user].work_mut();
        let Some(suspicion) = &mut work.suspicion else {
            work.suspicion = Some(Suspicion::new(sent)); // The instance is down, so there is a pause already.
            return;
        };
        suspicion.confirmed(sent);
        let (tries, pause) = (suspicion.tries(), grown(backoff, suspicion.tries()));
        if let Some(item) = work
            .waiting
            .front()
            .map(|front| front.item)
            .filter(|_| tries >= HELD_BACK_AFTER)
        {
            let user = self.users[user].name.clone();
            self.held_back.push(HeldBack {
                user,
                item,
                instance,
                tries,
                pause,
            });
        }
        // On an attempt, the next associate's instance may be able to read it.
        if self.users[user].work().attempt.is_none() {
            self.pause(user, now.instant + pause);
        }
    }

    /// The first `accepted` of what waited can be read.
    pub(super) fn relieve(&mut self, user: UserKey, accepted: usize) {
        let work = self.users[user].work_mut();
        if let Some(suspicion) = work.suspicion.take() {
            work.suspicion = suspicion.relieved(accepted);
        }
    }
}

//! Connections to one SQLite file, used by threads that may block.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::error::Problem;

/// As many connections as there may be at a time, each used by one caller at a time. Others wait.
#[derive(Debug, Clone)]
pub(super) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    idle: Mutex<Vec<Connection>>,
    free: Semaphore,
}

impl Pool {
    pub(super) fn new(connections: Vec<Connection>) -> Self {
        let free = Semaphore::new(connections.len());
        Self(Arc::new(Shared {
            idle: Mutex::new(connections),
            free,
        }))
    }

    /// Runs something on a thread for what blocks. It runs to its end even if the waiting task is
    /// dropped.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let shared = self.0.clone();
        let permit = shared.free.acquire().await.map_err(Problem::broken)?;
        permit.forget();
        let done = tokio::task::spawn_blocking(move || {
            let idle = || shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let mut connection = idle().pop().expect("a permit is a connection");
            let done =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut connection)));
            idle().push(connection);
            shared.free.add_permits(1);
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        done.await.map_err(Problem::broken)?
    }
}

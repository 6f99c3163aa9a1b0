//! Ends a role whose worker panics, and no other role of the member.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use crate::nats::NatsError;
use crate::partition::Role;

/// Does the work of a role and returns how it ended. A panic ends it like an error, so that it is
/// taken over again.
pub(super) async fn panics(
    role: Role,
    work: impl Future<Output = (Role, Result<(), NatsError>)>,
) -> (Role, Result<(), NatsError>) {
    // The work's state is dropped with it.
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or(panic.downcast_ref::<&str>().copied());
            (
                role,
                Err(NatsError::failed(
                    "a worker panicked",
                    text.unwrap_or("for an unknown reason"),
                )),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::chain;

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_role() {
        let number = 7;
        let (role, result) = panics(Role::Intake, async move {
            panic!("partition {number} cannot go on")
        })
        .await;
        assert_eq!(role, Role::Intake);
        let error = result.unwrap_err();
        assert_eq!(
            chain(&error).to_string(),
            "a worker panicked: partition 7 cannot go on"
        );
        assert!(
            panics(Role::Intake, async { (Role::Intake, Ok(())) })
                .await
                .1
                .is_ok()
        );
    }
}

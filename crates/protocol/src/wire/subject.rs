//! The destination of a route, from its value and the installation's names.

use crate::names::Names;
use crate::token::InstanceName;
use crate::wire::route::{MAX_SUBJECT_BYTES, RouteError, read_subject};

/// Returns the beginning of an instance's subjects, from its route's value.
///
/// # Errors
/// Says what is wrong with the value.
pub fn read_value(
    names: &Names,
    instance: &InstanceName,
    value: &[u8],
) -> Result<String, RouteError> {
    let own = names.instance(instance);
    match read_subject(value)? {
        // With `.deliver` behind it, `bellhop.sets` would be where reminders are published, and the
        // subject of another instance would bring that one what is for this one's users.
        Some(subject)
            if subject != own
                && (names.is_reserved(&subject) || subject.len() > MAX_SUBJECT_BYTES) =>
        {
            Err(RouteError::Subject(subject))
        }
        subject => Ok(subject.unwrap_or(own)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_subject_is_the_instances_own() {
        let names = Names::new("bellhop");
        let read =
            |value: &str| read_value(&names, &"app 1".parse().unwrap(), value.as_bytes()).unwrap();
        assert_eq!(read(""), "bellhop.app.app=201");
        assert_eq!(read(r#"{"subject":"eu.app.7"}"#), "eu.app.7");
        assert_eq!(
            read(r#"{"subject":"bellhop.app.app=201"}"#),
            "bellhop.app.app=201"
        );
    }

    #[test]
    fn route_to_internal_subject_is_refused() {
        let names = Names::new("bellhop");
        let others = [
            "bellhop.app.app-2",
            "bellhop.app.app-1.x",
            "bellhop.app.app",
            "bellhop.app.eu.7",
        ];
        for subject in [
            "bellhop.sets",
            "bellhop.parked.3",
            "bellhop.app",
            "bellhop.api",
        ]
        .into_iter()
        .chain(others)
        {
            let value = serde_json::json!({ "subject": subject }).to_string();
            let read = read_value(&names, &"app-1".parse().unwrap(), value.as_bytes());
            assert!(matches!(read, Err(RouteError::Subject(_))), "{subject}");
        }
    }

    #[test]
    fn only_own_subjects_may_be_long() {
        let names = Names::new("bellhop");
        let read = |instance: &str, subject: &str| {
            let value = serde_json::json!({ "subject": subject }).to_string();
            read_value(&names, &instance.parse().unwrap(), value.as_bytes())
        };
        assert!(
            read("app-1", &"x".repeat(256)).is_ok() && read("app-1", &"x".repeat(257)).is_err()
        );
        let (long, own) = (
            "é".repeat(64),
            format!("bellhop.app.{}", "=C3=A9".repeat(64)),
        );
        assert_eq!(read(&long, &own).unwrap(), own);
        let error = read("app-1", &format!("{}\n", "x".repeat(100_000)))
            .unwrap_err()
            .to_string();
        assert!(error.len() < 500 && !error.contains('\n'), "{error}");
    }
}

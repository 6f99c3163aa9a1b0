//! Where a route leads, by its value and the installation's names.

use super::Names;
use crate::token::InstanceName;
use crate::wire::route::{RouteError, read_subject};

/// What an instance's subjects begin with, by its route's value.
///
/// # Errors
/// Says what is wrong with the value.
pub fn read_value(names: &Names, instance: &InstanceName, value: &[u8]) -> Result<String, RouteError> {
    match read_subject(value)? {
        // With `.deliver` behind it, `bellhop.sets` would be where reminders are published.
        Some(subject) if names.is_reserved(&subject) && !subject.starts_with(&names.instances_prefix()) => {
            Err(RouteError::Subject(subject))
        }
        subject => Ok(subject.unwrap_or_else(|| names.instance(instance))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_without_a_subject_means_the_instances_own() {
        let names = Names::new("bellhop");
        let read = |value: &str| read_value(&names, &"app 1".parse().unwrap(), value.as_bytes()).unwrap();
        assert_eq!(read(""), "bellhop.app.app=201");
        assert_eq!(read(r#"{"subject":"eu.app.7"}"#), "eu.app.7");
        assert_eq!(read(r#"{"subject":"bellhop.app.eu.7"}"#), "bellhop.app.eu.7");
    }

    #[test]
    fn a_route_leads_to_none_of_bellhops_own_subjects() {
        let names = Names::new("bellhop");
        for subject in ["bellhop.sets", "bellhop.parked.3", "bellhop.app", "bellhop.api"] {
            let value = serde_json::json!({ "subject": subject }).to_string();
            let read = read_value(&names, &"app-1".parse().unwrap(), value.as_bytes());
            assert!(matches!(read, Err(RouteError::Subject(_))), "{subject}");
        }
    }
}

//! Dashboards and alerts: against the metrics that exist, and against a real Prometheus that
//! scrapes a real Bellhop.

mod alerts;
mod conventions;
mod exported;
mod files;
mod live;
mod query;

/// Checks that there are no complaints.
#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

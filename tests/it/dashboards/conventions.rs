//! The conventions of all dashboards.

use std::collections::BTreeSet;

use super::exported::Exported;
use super::files::{self, Dashboard, GridPos, Panel};
use super::{none, query};

/// Grafana's units that are used. A wrong one is shown as it stands.
const UNITS: [&str; 8] = [
    "short",
    "none",
    "s",
    "bytes",
    "cps",
    "reqps",
    "percentunit",
    "dateTimeFromNow",
];

#[test]
fn queries_use_existing_metrics_and_variables() {
    let exported = Exported::read();
    let dashboards = Dashboard::all();
    let queries = dashboards.iter().flat_map(Dashboard::queries);
    let complaints = queries.flat_map(|(place, target)| {
        let complaints = [
            query::complaints(&target.expr, &exported),
            query::panel_complaints(&target.expr),
        ]
        .concat();
        complaints
            .into_iter()
            .map(move |complaint| format!("{place}: {complaint}"))
    });
    none(complaints.collect());
}

#[test]
fn panels_have_descriptions() {
    let dashboards = Dashboard::all();
    let complaints = dashboards
        .iter()
        .flat_map(Dashboard::panels)
        .filter_map(|panel| {
            let wrong = [
                (panel.title.is_empty(), "a title"),
                (!panel.description.ends_with('.'), "a description"),
                (
                    !UNITS.contains(&panel.field_config.defaults.unit.as_str()),
                    "a unit",
                ),
                (
                    panel.datasource.uid != "${datasource}",
                    "the data source that is chosen",
                ),
                (panel.targets.is_empty(), "a query"),
                (
                    panel
                        .targets
                        .iter()
                        .any(|target| target.legend_format.is_empty()),
                    "a legend",
                ),
            ];
            let lacks: Vec<_> = wrong
                .into_iter()
                .filter_map(|(is_wrong, what)| is_wrong.then_some(what))
                .collect();
            (!lacks.is_empty()).then(|| format!("{}: lacks {}", panel.title, lacks.join(", ")))
        });
    none(complaints.collect());
}

#[test]
fn panels_lie_beside_each_other() {
    let cells = |panel: &Panel| {
        let &GridPos { x, y, w, h } = &panel.grid_pos;
        (x..x + w)
            .flat_map(move |x| (y..y + h).map(move |y| (x, y)))
            .collect::<Vec<_>>()
    };
    for dashboard in Dashboard::all() {
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard.boxes() {
            assert!(
                ids.insert(panel.id),
                "{}: id {} comes twice",
                dashboard.title,
                panel.id
            );
            let fits = cells(panel)
                .into_iter()
                .all(|(x, y)| x < 24 && taken.insert((x, y)));
            assert!(fits, "{}: {} does not fit", dashboard.title, panel.title);
        }
    }
}

#[test]
fn dashboards_are_linked_and_have_the_same_variables() {
    let dashboards = Dashboard::all();
    for (dashboard, other) in dashboards.iter().zip(dashboards.iter().rev()) {
        let variables: Vec<_> = dashboard
            .templating
            .list
            .iter()
            .map(|variable| variable.name.as_str())
            .collect();
        assert_eq!(
            variables,
            ["datasource", "job", "instance"],
            "{}",
            dashboard.title
        );
        let leads_on = dashboard.links.iter().any(|link| {
            link.url == format!("/d/{}", other.uid) && link.include_vars && link.keep_time
        });
        assert!(
            leads_on,
            "{} does not lead to {}",
            dashboard.title, other.title
        );
    }
}

#[test]
fn every_metric_has_a_panel_or_an_excuse() {
    let exported = Exported::read();
    let dashboards = Dashboard::all();
    let queries = dashboards.iter().flat_map(Dashboard::queries);
    let shown: BTreeSet<_> = queries
        .flat_map(|(_, target)| query::metrics(&target.expr, &exported))
        .collect();
    let readme = files::text("dashboards/README.md");
    let excused = |name: &str| readme.contains(&format!("\n- `{name}`: "));
    let missing = exported
        .names()
        .filter(|name| !shown.contains(name) && !excused(name));
    let needless = exported
        .names()
        .filter(|name| shown.contains(name) && excused(name));
    let complaints = missing
        .map(|name| format!("{name} is on no panel, and dashboards/README.md does not say why"));
    none(
        complaints
            .chain(needless.map(|name| format!("{name} is on a panel, and excused")))
            .collect(),
    );
}

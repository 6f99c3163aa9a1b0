//! The dashboards as Grafana reads them, as far as they are looked at here; and where all files
//! lie.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A file of the repository.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The text of a file of the repository.
pub(super) fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[derive(Debug, Deserialize)]
pub(super) struct Dashboard {
    pub(super) uid: String,
    pub(super) title: String,
    pub(super) links: Vec<Link>,
    pub(super) templating: Templating,
    panels: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Link {
    pub(super) url: String,
    pub(super) include_vars: bool,
    pub(super) keep_time: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Templating {
    pub(super) list: Vec<Variable>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Variable {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Panel {
    pub(super) id: u32,
    #[serde(rename = "type")]
    kind: String,
    pub(super) title: String,
    #[serde(default)]
    pub(super) description: String,
    pub(super) grid_pos: GridPos,
    #[serde(default)]
    pub(super) datasource: Datasource,
    #[serde(default)]
    pub(super) field_config: FieldConfig,
    #[serde(default)]
    pub(super) targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
pub(super) struct GridPos {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) w: u32,
    pub(super) h: u32,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Datasource {
    pub(super) uid: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct FieldConfig {
    pub(super) defaults: Defaults,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Defaults {
    pub(super) unit: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Target {
    pub(super) expr: String,
    pub(super) legend_format: String,
}

impl Dashboard {
    /// Both of them.
    pub(super) fn all() -> [Self; 2] {
        ["dashboards/overview.json", "dashboards/internals.json"].map(|name| {
            serde_json::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
        })
    }

    /// Every panel and every row.
    pub(super) fn boxes(&self) -> &[Panel] {
        &self.panels
    }

    /// The panels that draw something.
    pub(super) fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.panels.iter().filter(|panel| panel.kind != "row")
    }

    /// The queries of all panels, and where each is.
    pub(super) fn queries(&self) -> impl Iterator<Item = (String, &Target)> {
        let of_panel = |panel: &Panel| format!("{}, panel {}", self.title, panel.title);
        self.panels().flat_map(move |panel| {
            panel
                .targets
                .iter()
                .map(move |target| (of_panel(panel), target))
        })
    }
}

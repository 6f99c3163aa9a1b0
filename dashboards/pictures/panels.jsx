// The kinds of panels that the dashboards use, each by Grafana's component for it.

import { dateTime, getDisplayProcessor, getDisplayValueAlignmentFactors, VizOrientation } from "@grafana/data";
import { BigValue, TimeSeries, useTheme2, VizRepeater } from "@grafana/ui";

// Grafana's defaults, where a dashboard says nothing.
const COLOR = { mode: "palette-classic" };
const CUSTOM = { drawStyle: "line", lineWidth: 1, fillOpacity: 0, showPoints: "never", axisPlacement: "auto" };
const LEGEND = { displayMode: "list", placement: "bottom", showLegend: true, calcs: [] };

/** What a field is like: by the panel's defaults, and by what is said of its name. */
function configured(frames, { defaults, overrides }, theme) {
  frames.forEach((frame, index) => {
    const field = frame.fields[1];
    const custom = { ...CUSTOM, ...defaults.custom };
    if (custom.stacking) custom.stacking = { group: "A", ...custom.stacking };
    field.config = { color: COLOR, ...defaults, ...field.config, custom };
    const said = overrides.filter(({ matcher }) => matcher.id === "byName" && matcher.options === field.name);
    said.flatMap(({ properties }) => properties).forEach(({ id, value }) => (field.config[id] = value));
    field.state = { seriesIndex: index };
    field.display = getDisplayProcessor({ field, theme, timeZone: "utc" });
  });
  return frames;
}

/** Lines over time. */
export function Lines({ panel, frames, time, width, height }) {
  const fields = configured(frames, panel.fieldConfig, useTheme2());
  if (fields.length === 0) return <Nothing panel={panel} />;
  const [from, to] = [dateTime(time.from * 1000), dateTime(time.to * 1000)];
  const timeRange = { from, to, raw: { from, to } };
  return <TimeSeries {...{ frames: fields, width, height, timeRange, timeZone: "utc", legend: LEGEND }} />;
}

/** The last value of each series, in large figures. */
export function Stat({ panel, frames, width, height }) {
  const theme = useTheme2();
  const { colorMode, graphMode, textMode } = panel.options;
  const values = configured(frames, panel.fieldConfig, theme).map(({ fields: [, field] }) => ({
    display: { ...field.display(field.values.at(-1)), title: field.name },
  }));
  if (values.length === 0) return <Nothing panel={panel} />;
  const looks = { colorMode, graphMode, textMode, theme };
  const renderValue = ({ value, ...one }) => <BigValue {...{ ...one, ...looks, value: value.display }} />;
  const repeated = { source: values, getValues: () => values, getAlignmentFactors: getDisplayValueAlignmentFactors };
  const room = { width, height, orientation: VizOrientation.Auto };
  return <VizRepeater {...{ ...repeated, ...room, renderValue, renderCounter: 1 }} />;
}

function Nothing({ panel }) {
  const style = { display: "grid", placeItems: "center", height: "100%", opacity: 0.7 };
  return <div style={style}>{panel.fieldConfig.defaults.noValue ?? "No data"}</div>;
}

// A dashboard, laid out as Grafana does.

import { createTheme, ThemeContext } from "@grafana/data";
import { GlobalStyles, PanelChrome } from "@grafana/ui";
import { useEffect } from "react";
import { createRoot } from "react-dom/client";
import internals from "../internals.json";
import overview from "../overview.json";
import { Lines, Stat } from "./panels.jsx";
import { frames, range } from "./prometheus.js";

// Grafana's grid: 24 columns, rows of 30 px, 8 px between panels.
const [COLUMNS, ROW, GAP, WIDTH] = [24, 30, 8, 1280];

function place({ x, y, w, h }) {
  const column = (WIDTH - GAP) / COLUMNS;
  return { left: GAP + x * column, top: GAP + y * (ROW + GAP), width: w * column - GAP, height: h * (ROW + GAP) - GAP };
}

function Panel({ panel, frames, time }) {
  const { width, height, ...corner } = place(panel.gridPos);
  const Kind = { timeseries: Lines, stat: Stat }[panel.type];
  const drawn = (width, height) => <Kind {...{ panel, frames, time, width, height }} />;
  return (
    <div style={{ position: "absolute", width, height, ...corner }}>
      {Kind ? <PanelChrome {...{ ...panel, width, height, children: drawn }} /> : <h5>{panel.title}</h5>}
    </div>
  );
}

function Board({ drawn, time, theme }) {
  // What components do when they are shown is over when two frames have been painted.
  useEffect(() => {
    requestAnimationFrame(() => requestAnimationFrame(() => (document.getElementById("board").dataset.drawn = "")));
  }, []);
  const places = drawn.map(({ panel }) => place(panel.gridPos));
  const height = Math.max(...places.map(({ top, height }) => top + height)) + GAP;
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles isExtensionSidebarOpen={false} />
      <div style={{ position: "relative", width: WIDTH, height, background: theme.colors.background.canvas }}>
        {drawn.map((one) => (
          <Panel key={one.panel.id} {...one} time={time} />
        ))}
      </div>
    </ThemeContext.Provider>
  );
}

const asked = new URLSearchParams(location.search);
const dashboard = { overview, internals }[asked.get("dashboard")];
const time = range(asked.get("last"));
const drawn = dashboard.panels.map(async (panel) => ({ panel, frames: await frames(panel, time) }));
const theme = createTheme({ colors: { mode: "dark" } });
const board = <Board drawn={await Promise.all(drawn)} time={time} theme={theme} />;
createRoot(document.getElementById("board")).render(board);

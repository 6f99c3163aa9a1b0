// Asks Prometheus what a panel asks, with the dashboard's variables at their defaults.

import { FieldType } from "@grafana/data";

// As many points as a panel has room for.
const POINTS = 200;
// What prometheus.yml says, in seconds.
const SCRAPE = 15;
const UNITS = { s: 1, m: 60, h: 3600 };

/** The times of a picture that looks so far back, such as `15m`, in seconds since 1970. */
export function range(last) {
  const step = Math.ceil((Number(last.slice(0, -1)) * UNITS[last.at(-1)]) / POINTS);
  const to = Math.floor(Date.now() / 1000);
  return { from: to - POINTS * step, to, step };
}

/** The fields of a panel's queries: for each a column of times, and one of values for each series. */
export async function frames(panel, time) {
  const answers = (panel.targets ?? []).map(async (target) => {
    const parameters = new URLSearchParams({ query: filled(target.expr, time) });
    const range = { start: time.from, end: time.to, step: time.step };
    Object.entries(target.instant ? { time: time.to } : range).forEach((pair) => parameters.append(...pair));
    const response = await fetch(`/api/v1/query${target.instant ? "" : "_range"}?${parameters}`);
    const answer = await response.json();
    if (answer.status !== "success") throw new Error(`${panel.title}: ${answer.error}`);
    return answer.data.result.map((series) => frame(target, series, time));
  });
  return (await Promise.all(answers)).flat();
}

/** Grafana takes rates over four scrapes at least, and over a step and a scrape. */
function filled(query, time) {
  const variables = {
    $__rate_interval: `${Math.max(time.step + SCRAPE, 4 * SCRAPE)}s`,
    $__range: `${time.to - time.from}s`,
    $job: ".+",
    $instance: ".+",
  };
  return Object.entries(variables).reduce((query, [name, value]) => query.replaceAll(name, value), query);
}

/** A quantile of nothing is no number: a gap in lines, as Grafana has it. */
function frame(target, { metric, value, values = [value] }, time) {
  const numbers = values.filter(([, value]) => value !== "NaN");
  const samples = new Map(numbers.map(([at, value]) => [Math.round(at), Number(value)]));
  const length = target.instant ? 1 : POINTS + 1;
  const times = Array.from({ length }, (_, n) => time.to - (length - 1 - n) * time.step);
  const name = target.legendFormat.replaceAll(/{{(\w+)}}/g, (_, label) => metric[label] ?? "");
  const column = (name, type, of) => ({ name, type, config: { displayNameFromDS: name }, values: times.map(of) });
  const moments = column("Time", FieldType.time, (at) => at * 1000);
  return { length, fields: [moments, column(name, FieldType.number, (at) => samples.get(at) ?? null)] };
}

// Draws both dashboards from what a running Prometheus has, with Grafana's own components, into docs/.
//
//   npm install
//   npm run draw -- http://127.0.0.1:9090 15m
//
// The time is how far back the pictures look. Debian has what else it takes: `apt-get install chromium pngquant`.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import puppeteer from "puppeteer-core";
import { build, preview } from "vite";

const PATIENCE = { timeout: 120_000 };
const [prometheus = "http://127.0.0.1:9090", last = "15m"] = process.argv.slice(2);
const here = fileURLToPath(new URL(".", import.meta.url));

const output = { outDir: "node_modules/.board", target: "esnext", minify: false };
const page = { root: here, logLevel: "error", build: output, define: { "process.env": {} } };
await build(page);
const server = await preview({ ...page, preview: { port: 0, proxy: { "/api": prometheus } } });
// As root, as in containers, Chromium runs without its sandbox or not at all.
const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  for (const name of ["overview", "internals"]) {
    const tab = await browser.newPage();
    tab.on("pageerror", (error) => console.error(`${name}: ${error}`));
    await tab.setViewport({ width: 1280, height: 900 });
    await tab.goto(`${server.resolvedUrls.local[0]}?dashboard=${name}&last=${last}`, PATIENCE);
    const board = await tab.waitForSelector("#board[data-drawn]", PATIENCE);
    const path = fileURLToPath(new URL(`../../docs/${name}.png`, import.meta.url));
    await board.screenshot({ path });
    execFileSync("pngquant", ["--force", "--output", path, path]);
    console.log(path);
  }
} finally {
  await browser.close();
  await server.close();
}

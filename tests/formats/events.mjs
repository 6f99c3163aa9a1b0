// Writes CloudEvents with JavaScript's SDK: reads one event a line, and prints the messages of its modes.
import { createInterface } from "node:readline";
import { CloudEvent, HTTP } from "cloudevents";

for await (const line of createInterface({ input: process.stdin })) {
  const event = new CloudEvent(JSON.parse(line));
  const message = ({ headers, body }) => ({ headers, body });
  console.log(JSON.stringify({ binary: message(HTTP.binary(event)), structured: message(HTTP.structured(event)) }));
}

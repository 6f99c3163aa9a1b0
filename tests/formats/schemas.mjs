// Compiles JSON Schemas with Ajv, in its strict mode, and checks examples. Reads {"schema": …, "examples": […]} a line.
import { createInterface } from "node:readline";
import Ajv2020 from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

for await (const line of createInterface({ input: process.stdin })) {
  const { schema, examples } = JSON.parse(line);
  const ajv = new Ajv2020({ strict: true, allErrors: true });
  addFormats(ajv);
  const problems = [];
  try {
    const validate = ajv.compile(schema);
    for (const example of examples) if (!validate(example)) problems.push(ajv.errorsText(validate.errors));
  } catch (error) {
    problems.push(error.message);
  }
  console.log(JSON.stringify(problems));
}

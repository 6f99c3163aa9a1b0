/**
 * Returns the members of a JSON array or object as they are written, so that nothing of a number is lost: by place in an
 * array, by name in an object. The text must be valid JSON.
 *
 * @internal
 */
export function members(json: string): Map<string, string> {
  const found = new Map<string, string>();
  const isObject = json.trimStart()[0] === "{";
  let [depth, start, name] = [0, 0, ""];
  // A string, or one of the characters that structure JSON. What is between them needs no look.
  for (const { 0: part, index } of json.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]/g)) {
    const isEnd = part === "}" || part === "]";
    if (isEnd) depth -= 1;
    if ((part === "," && depth === 1) || (isEnd && depth === 0)) {
      const value = json.slice(start, index).trim();
      if (value !== "") found.set(isObject ? name : String(found.size), value);
      start = index + 1;
    } else if (part === ":" && depth === 1) {
      name = JSON.parse(json.slice(start, index)) as string;
      start = index + 1;
    } else if (part === "{" || part === "[") {
      if (depth === 0) start = index + 1;
      depth += 1;
    }
  }
  return found;
}

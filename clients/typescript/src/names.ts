import { BellhopError } from "./errors.js";

const encoder = new TextEncoder();
const MAX_NAME_BYTES = 128;

/** Returns the number of bytes of a text in UTF-8. */
export const byteLength = (text: string): number => encoder.encode(text).length;

/** Whether a text has half of a surrogate pair, which UTF-8 cannot express. */
export const isTorn = (text: string): boolean => /\p{Surrogate}/u.test(text);

/** Returns the problem of a text that must have 1 to `max` bytes and no control characters. */
export function problemOf(text: unknown, max = MAX_NAME_BYTES): string | undefined {
  if (typeof text !== "string") return `must be text, not ${typeof text}`;
  if (text === "") return "is empty";
  if (isTorn(text)) return "has half of a surrogate pair";
  if (/\p{Cc}/u.test(text)) return "has control characters";
  if (byteLength(text) > max) return `has more than ${max} bytes`;
  return undefined;
}

/** Returns the name of a user, instance or source as one token of a subject. Throws if it is no such name. */
export function token(what: string, name: string): string {
  const problem = problemOf(name);
  if (problem !== undefined) {
    throw new BellhopError("invalid", `the ${what} ${JSON.stringify(name)} ${problem}`);
  }
  if (/^[\w-]+$/.test(name)) return name;
  const escaped = (byte: number) => `=${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  return Array.from(encoder.encode(name), (byte) => {
    const character = String.fromCharCode(byte);
    return /[\w-]/.test(character) ? character : escaped(byte);
  }).join("");
}

/** Rules for names, which are byte strings: one char is one byte, any encoding or none. */
import { NAME_BYTES_MAX } from "./format.ts";

/** NUL and "/" are the two bytes that no name may hold. */
const BAD_IN_NAME = /[\0/\u0100-\uffff]/;
/** NUL ends a string in the kernel. */
const BAD_IN_STRING = /[\0\u0100-\uffff]/;

/** What is wrong with a directory entry's name, or undefined. */
export function nameFault(name: string): string | undefined {
  if (name.length === 0) return "is empty";
  if (name.length > NAME_BYTES_MAX) return `has ${name.length} bytes, more than ${NAME_BYTES_MAX}`;
  if (name === "." || name === "..") return "is reserved";
  return BAD_IN_NAME.test(name) ? "holds a slash, a zero byte or a wide character" : undefined;
}

/** Whether every char is a byte other than zero. */
export function isByteString(text: string): boolean {
  return !BAD_IN_STRING.test(text);
}

/** A name for a message: JSON escapes what a terminal should not see. */
export function quoteName(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name);
}

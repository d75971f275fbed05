/** Byte strings from a layer, made safe for a message. */

const QUOTED_CHARS_MAX = 200;

/** A quoted, shortened, control-character-free form of a byte string. */
export function quoteBytes(bytes: string): string {
  const text = Buffer.from(bytes.slice(0, QUOTED_CHARS_MAX), "latin1").toString("utf8");
  return JSON.stringify(text) + (bytes.length > QUOTED_CHARS_MAX ? "…" : "");
}

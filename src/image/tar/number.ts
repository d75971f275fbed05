/** Numbers of tar headers: octal, base-256 and pax decimal. Source: Go archive/tar strconv.go. */

const ZERO = 0x30;
const SEVEN = 0x37;
const SPACE = 0x20;

/** A numeric header field, or undefined if malformed or beyond 2^53. */
export function parseNumeric(
  block: Uint8Array,
  offset: number,
  length: number,
): number | undefined {
  const first = block[offset] ?? 0;
  return (first & 0x80) === 0
    ? parseOctal(block, offset, length)
    : parseBase256(block, offset, length);
}

/** Leading and trailing spaces and NULs are padding; an empty field is 0. */
export function parseOctal(block: Uint8Array, offset: number, length: number): number | undefined {
  let start = offset;
  let end = offset + length;
  while (start < end && isPadding(block[start])) start += 1;
  while (end > start && isPadding(block[end - 1])) end -= 1;
  let value = 0;
  for (let index = start; index < end; index += 1) {
    const char = block[index] ?? 0;
    if (char === 0 && index > start) break;
    if (char < ZERO || char > SEVEN) return undefined;
    value = value * 8 + (char - ZERO);
  }
  return Number.isSafeInteger(value) ? value : undefined;
}

/** Two's complement, big endian, the first byte's top bit only marks the form. */
function parseBase256(block: Uint8Array, offset: number, length: number): number | undefined {
  const isNegative = ((block[offset] ?? 0) & 0x40) !== 0;
  const inversion = isNegative ? 0xff : 0;
  let value = 0;
  for (let index = 0; index < length; index += 1) {
    let byte = (block[offset + index] ?? 0) ^ inversion;
    if (index === 0) byte &= 0x7f;
    value = value * 256 + byte;
    if (!Number.isSafeInteger(value)) return undefined;
  }
  return isNegative ? -value - 1 : value;
}

/** A pax decimal; undefined if malformed or beyond 2^53. */
export function parseDecimal(text: string): number | undefined {
  if (!/^[+-]?[0-9]+$/.test(text)) return undefined;
  const value = Number(text);
  return Number.isSafeInteger(value) ? value + 0 : undefined;
}

/** `[-]SECONDS[.FRACTION]` as seconds rounded down and nanoseconds above them. */
export function parsePaxTime(text: string): { sec: number; nsec: number } | undefined {
  const match = /^([+-]?[0-9]+)(?:\.([0-9]*))?$/.exec(text);
  if (match === null) return undefined;
  const sec = parseDecimal(match[1] ?? "");
  if (sec === undefined) return undefined;
  const nsec = Number((match[2] ?? "").slice(0, 9).padEnd(9, "0"));
  if (nsec === 0) return { sec: sec === 0 ? 0 : sec, nsec: 0 };
  return text.startsWith("-") ? { sec: sec - 1, nsec: 1_000_000_000 - nsec } : { sec, nsec };
}

function isPadding(char: number | undefined): boolean {
  return char === SPACE || char === 0;
}

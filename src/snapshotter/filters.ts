/**
 * containerd's filter language, for List. Source: containerd pkg/filters.
 *
 *     selectors := selector ("," selector)*       all must match
 *     selector  := fieldpath (operator value)?    without an operator: the field is present
 *     fieldpath := field ("." field)*
 *     field     := quoted | [A-Za-z0-9_]+
 *     operator  := "==" | "!=" | "~="
 *     value     := quoted | [^\s,]+               after ~= also /quoted/ and |quoted|
 *
 * Several filters: one of them must match. Parsing is pure; a filter is compiled once.
 */
import { RE2JS } from "re2js";
import { DaemonError } from "../base/errors.ts";
import { FILTER_CHARS_MAX, FILTERS_MAX } from "./limits.ts";
import type { SnapshotInfo } from "./snapshot-info.ts";

/** The value of a field, or undefined where the object has none. */
export type FieldReader = (path: readonly string[]) => string | undefined;
export type Filter = (read: FieldReader) => boolean;

const OPERATOR_CHARS = "=!~";
const QUOTES = '"/|';
/** Source: Go `unicode.IsSpace` for Latin-1, and the Unicode spaces that JavaScript's \s shares. */
const SPACE = /\s|\u0085/u;

function fail(input: string, position: number, message: string): never {
  const place = input.slice(Math.max(0, position - 20), position + 20);
  throw new DaemonError(
    "invalid-argument",
    `filter: ${message} at character ${position} (near ${JSON.stringify(place)})`,
  );
}

/** One filter, read from left to right. */
class Scanner {
  readonly input: string;
  position = 0;

  constructor(input: string) {
    this.input = input;
  }

  get peek(): string {
    return this.input[this.position] ?? "";
  }

  get isAtEnd(): boolean {
    return this.position >= this.input.length;
  }

  fail(message: string): never {
    fail(this.input, this.position, message);
  }

  skipSpace(): void {
    while (!this.isAtEnd && SPACE.test(this.peek)) this.position += 1;
  }

  takeWhile(isWanted: (char: string) => boolean): string {
    const start = this.position;
    while (!this.isAtEnd && isWanted(this.peek)) this.position += 1;
    return this.input.slice(start, this.position);
  }

  /** The text between quotes as it stands, escapes not yet resolved. */
  takeQuoted(): { readonly quote: string; readonly body: string } {
    const quote = this.peek;
    const start = this.position + 1;
    let end = start;
    for (;;) {
      const char = this.input[end];
      if (char === undefined || char === "\n") this.fail("quoted text does not end");
      if (char === quote) break;
      end += char === "\\" ? 2 : 1;
    }
    this.position = end + 1;
    return { quote, body: this.input.slice(start, end) };
  }
}

const SIMPLE_ESCAPES: Readonly<Record<string, number>> = {
  a: 7,
  b: 8,
  f: 12,
  n: 10,
  r: 13,
  t: 9,
  v: 11,
  "\\": 92,
};

function takeDigits(body: string, at: number, pattern: RegExp): string | undefined {
  pattern.lastIndex = at;
  return pattern.exec(body)?.[0];
}

/**
 * Resolves Go's escapes; undefined when one is malformed. `\x` and octal escapes are bytes, so the
 * text is put together as UTF-8. Source: Go spec, "String literals".
 */
export function unquote(body: string, quote: string): string | undefined {
  if (!body.includes("\\")) return body;
  const parts: Buffer[] = [];
  let at = 0;
  while (at < body.length) {
    const slash = body.indexOf("\\", at);
    if (slash < 0) {
      parts.push(Buffer.from(body.slice(at)));
      break;
    }
    parts.push(Buffer.from(body.slice(at, slash)));
    const escape = readEscape(body, slash + 1, quote);
    if (escape === undefined) return undefined;
    parts.push(escape.bytes);
    at = escape.end;
  }
  return Buffer.concat(parts).toString();
}

function readEscape(
  body: string,
  at: number,
  quote: string,
): { readonly bytes: Buffer; readonly end: number } | undefined {
  const kind = body[at] ?? "";
  if (kind === quote) return { bytes: Buffer.from(quote), end: at + 1 };
  const simple = SIMPLE_ESCAPES[kind];
  if (simple !== undefined) return { bytes: Buffer.from([simple]), end: at + 1 };
  if (kind === "x") {
    const digits = takeDigits(body, at + 1, /[0-9a-fA-F]{2}/y);
    return digits === undefined ? undefined : { bytes: Buffer.from(digits, "hex"), end: at + 3 };
  }
  if (kind === "u" || kind === "U") {
    const count = kind === "u" ? 4 : 8;
    const digits = takeDigits(body, at + 1, count === 4 ? /[0-9a-fA-F]{4}/y : /[0-9a-fA-F]{8}/y);
    const point = Number.parseInt(digits ?? "", 16);
    if (Number.isNaN(point) || point > 0x10ffff) return undefined;
    return { bytes: Buffer.from(String.fromCodePoint(point)), end: at + 1 + count };
  }
  const octal = takeDigits(body, at, /[0-3][0-7]{2}/y);
  if (octal === undefined) return undefined;
  return { bytes: Buffer.from([Number.parseInt(octal, 8)]), end: at + 3 };
}

function takeUnquoted(scanner: Scanner, allowAlternatives: boolean): string {
  const start = scanner.position;
  const { quote, body } = scanner.takeQuoted();
  if (quote !== '"' && !allowAlternatives) fail(scanner.input, start, "invalid quote");
  const text = unquote(body, quote);
  if (text === undefined) fail(scanner.input, start, "malformed escape in quoted text");
  return text;
}

function parseField(scanner: Scanner): string {
  scanner.skipSpace();
  if (scanner.peek !== "" && QUOTES.includes(scanner.peek)) return takeUnquoted(scanner, false);
  const field = scanner.takeWhile((char) => /[A-Za-z0-9_]/.test(char));
  if (field === "") scanner.fail("expected a field");
  return field;
}

function parseValue(scanner: Scanner, allowAlternatives: boolean): string {
  scanner.skipSpace();
  if (scanner.peek !== "" && QUOTES.includes(scanner.peek)) {
    return takeUnquoted(scanner, allowAlternatives);
  }
  // A value cannot begin like a separator or an operator: those are tokens of their own.
  if (scanner.peek === "." || OPERATOR_CHARS.includes(scanner.peek)) {
    scanner.fail("expected a value");
  }
  const value = scanner.takeWhile((char) => char !== "," && !SPACE.test(char));
  if (value === "") scanner.fail("expected a value");
  return value;
}

/**
 * Go's syntax, in time linear in what is searched: a JavaScript RegExp may backtrack for ever. Go
 * compiles the expression when it is first used, and a broken one matches nothing.
 */
function compileExpression(source: string): RE2JS | undefined {
  try {
    return RE2JS.compile(source);
  } catch {
    return undefined;
  }
}

function compileSelector(path: readonly string[], operator: string, value: string): Filter {
  switch (operator) {
    case "==":
      return (read) => read(path) === value;
    case "!=":
      // An absent field reads as "" in Go.
      return (read) => (read(path) ?? "") !== value;
    default: {
      const expression = compileExpression(value);
      return (read) => expression?.test(read(path) ?? "") === true;
    }
  }
}

function parseSelector(scanner: Scanner): Filter {
  const path = [parseField(scanner)];
  while (scanner.peek === ".") {
    scanner.position += 1;
    path.push(parseField(scanner));
  }
  if (scanner.isAtEnd || scanner.peek === ",") return (read) => read(path) !== undefined;
  scanner.skipSpace();
  const operator = scanner.takeWhile((char) => OPERATOR_CHARS.includes(char));
  if (operator !== "==" && operator !== "!=" && operator !== "~=") {
    scanner.fail("expected an operator (== != ~=)");
  }
  const value = parseValue(scanner, operator === "~=");
  return compileSelector(path, operator, value);
}

/** Throws `invalid-argument`. The empty filter matches everything. */
export function parseFilter(input: string): Filter {
  if (input.length > FILTER_CHARS_MAX) {
    throw new DaemonError("invalid-argument", `filter of ${input.length} characters`);
  }
  if (input === "") return () => true;
  const scanner = new Scanner(input);
  const selectors = [parseSelector(scanner)];
  while (!scanner.isAtEnd) {
    if (scanner.peek !== ",") scanner.fail("unexpected input");
    scanner.position += 1;
    selectors.push(parseSelector(scanner));
  }
  return (read) => selectors.every((selector) => selector(read));
}

/** No filter at all matches everything. */
export function parseFilters(inputs: readonly string[]): Filter {
  if (inputs.length > FILTERS_MAX) {
    throw new DaemonError("invalid-argument", `${inputs.length} filters; at most ${FILTERS_MAX}`);
  }
  if (inputs.length === 0) return () => true;
  const filters = inputs.map((input) => parseFilter(input));
  return (read) => filters.some((filter) => filter(read));
}

/** The fields of a snapshot. Source: containerd core/snapshots/storage, adaptSnapshot. */
export function snapshotFields(info: SnapshotInfo): FieldReader {
  return (path) => {
    switch (path[0]) {
      case "kind":
        return info.kind;
      case "name":
        return info.name;
      case "parent":
        return info.parent;
      case "labels":
        return info.labels.get(path.slice(1).join("."));
      default:
        return undefined;
    }
  };
}

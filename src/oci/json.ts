/**
 * Reading fields of hostile JSON: every reader names the document and the field when it refuses.
 * Only own properties are read, so a key such as `__proto__` is data like any other.
 */
import { DaemonError } from "../base/errors.ts";
import { ANNOTATIONS_MAX, DOCUMENT_BYTES_MAX } from "./limits.ts";

/** A JSON object and where it stands, for messages: `manifest.layers[3]`. */
export interface JsonNode {
  readonly at: string;
  readonly value: Readonly<Record<string, unknown>>;
}

function malformed(at: string, problem: string, cause?: unknown): DaemonError {
  return new DaemonError("data-loss", `${at}: ${problem}`, cause === undefined ? {} : { cause });
}

export function isJsonObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Throws `data-loss` above DOCUMENT_BYTES_MAX and when it is not an object. */
export function parseJsonDocument(bytes: Uint8Array, at: string): JsonNode {
  if (bytes.length > DOCUMENT_BYTES_MAX) {
    throw new DaemonError(
      "data-loss",
      `${at} has ${bytes.length} bytes, the limit is ${DOCUMENT_BYTES_MAX}`,
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    // The parser's own message quotes the document, which may be somebody's secret.
    throw malformed(at, "not a JSON document");
  }
  return jsonObject(value, at);
}

export function jsonObject(value: unknown, at: string): JsonNode {
  if (!isJsonObject(value)) throw malformed(at, "not an object");
  return { at, value };
}

/** Absent and null are the same, as in Go's decoder, which wrote most of these documents. */
function field(node: JsonNode, key: string): unknown {
  return Object.hasOwn(node.value, key) ? (node.value[key] ?? undefined) : undefined;
}

export function optionalObject(node: JsonNode, key: string): JsonNode | undefined {
  const value = field(node, key);
  return value === undefined ? undefined : jsonObject(value, `${node.at}.${key}`);
}

export function requiredObject(node: JsonNode, key: string): JsonNode {
  const value = optionalObject(node, key);
  if (value === undefined) throw malformed(`${node.at}.${key}`, "missing");
  return value;
}

export function optionalString(
  node: JsonNode,
  key: string,
  options: { readonly charsMax: number },
): string | undefined {
  const value = field(node, key);
  if (value === undefined) return undefined;
  if (typeof value !== "string") throw malformed(`${node.at}.${key}`, "not a string");
  if (value.length > options.charsMax) {
    throw malformed(`${node.at}.${key}`, `longer than ${options.charsMax} characters`);
  }
  return value;
}

export function requiredString(
  node: JsonNode,
  key: string,
  options: { readonly charsMax: number },
): string {
  const value = optionalString(node, key, options);
  if (value === undefined || value === "") throw malformed(`${node.at}.${key}`, "missing");
  return value;
}

/** A whole number from 0 to `max`. */
export function requiredSize(
  node: JsonNode,
  key: string,
  options: { readonly max: number },
): number {
  const value = field(node, key);
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw malformed(`${node.at}.${key}`, "not a size");
  }
  if (value > options.max) throw malformed(`${node.at}.${key}`, `${value} is over ${options.max}`);
  return value;
}

/** An absent array is empty. */
export function optionalArray(
  node: JsonNode,
  key: string,
  options: { readonly max: number },
): readonly unknown[] {
  const value = field(node, key);
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw malformed(`${node.at}.${key}`, "not an array");
  if (value.length > options.max) {
    throw malformed(`${node.at}.${key}`, `${value.length} entries, the limit is ${options.max}`);
  }
  return value;
}

export function stringArray(
  node: JsonNode,
  key: string,
  options: { readonly max: number; readonly charsMax: number },
): readonly string[] {
  return optionalArray(node, key, options).map((value, index) => {
    if (typeof value !== "string" || value.length > options.charsMax) {
      throw malformed(`${node.at}.${key}[${index}]`, "not a (short enough) string");
    }
    return value;
  });
}

/** A map of strings (annotations); an absent one is empty. */
export function stringMap(node: JsonNode, key: string): ReadonlyMap<string, string> {
  const child = optionalObject(node, key);
  if (child === undefined) return new Map();
  const entries = Object.entries(child.value);
  if (entries.length > ANNOTATIONS_MAX) {
    throw malformed(child.at, `${entries.length} entries, the limit is ${ANNOTATIONS_MAX}`);
  }
  return new Map(
    entries.map(([name, value]) => {
      if (typeof value !== "string") throw malformed(child.at, "a value is not a string");
      return [name, value];
    }),
  );
}

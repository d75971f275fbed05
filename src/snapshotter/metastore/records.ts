/** Journal payloads: a JSON array of operations, one array per transaction group. */
import { DaemonError } from "../../base/errors.ts";
import { parseChainId } from "../../oci/index.ts";
import type { SnapshotKind, SnapshotRecord } from "../snapshot-info.ts";

export const FORMAT_VERSION = 1;

export type Operation =
  | { readonly kind: "put"; readonly record: SnapshotRecord }
  | { readonly kind: "delete"; readonly name: string }
  /** The containerd whose snapshots these are. */
  | { readonly kind: "owner"; readonly uuid: string }
  /** First of every file: everything known before is void. */
  | { readonly kind: "begin"; readonly nextId: number };

const KIND_LETTERS: Readonly<Record<SnapshotKind, string>> = {
  active: "a",
  view: "v",
  committed: "c",
};

function kindOf(letter: unknown): SnapshotKind | undefined {
  if (letter === "a") return "active";
  if (letter === "v") return "view";
  return letter === "c" ? "committed" : undefined;
}

/** Labels are pairs: an object could not hold the key `__proto__`. */
function encodeOperation(operation: Operation): readonly unknown[] {
  switch (operation.kind) {
    case "begin":
      return ["b", FORMAT_VERSION, operation.nextId];
    case "owner":
      return ["o", operation.uuid];
    case "delete":
      return ["d", operation.name];
    case "put": {
      const { record } = operation;
      return [
        "p",
        record.id,
        record.name,
        record.parent,
        KIND_LETTERS[record.kind],
        String(record.createdNs),
        String(record.updatedNs),
        [...record.labels],
        record.chainId ?? null,
        record.usage === undefined ? null : [record.usage.bytes, record.usage.inodes],
      ];
    }
  }
}

export function encodeOperations(operations: readonly Operation[]): Buffer {
  return Buffer.from(JSON.stringify(operations.map((operation) => encodeOperation(operation))));
}

/** Several encoded arrays as one. */
export function joinOperations(parts: readonly Buffer[]): Buffer {
  const pieces: Buffer[] = [];
  for (const part of parts) pieces.push(Buffer.from(","), part.subarray(1, -1));
  return Buffer.concat([Buffer.from("["), ...pieces.slice(1), Buffer.from("]")]);
}

function bad(what: string): never {
  throw new DaemonError("data-loss", `journal record with a bad ${what}`);
}

function parseString(value: unknown, what: string): string {
  return typeof value === "string" ? value : bad(what);
}

function parseCount(value: unknown, what: string): number {
  return Number.isSafeInteger(value) && Number(value) >= 0 ? Number(value) : bad(what);
}

function parseNs(value: unknown): bigint {
  const text = parseString(value, "time");
  return /^-?\d{1,20}$/.test(text) ? BigInt(text) : bad("time");
}

function parseLabels(value: unknown): Map<string, string> {
  const labels = new Map<string, string>();
  for (const pair of Array.isArray(value) ? (value as unknown[]) : bad("label list")) {
    const [key, text] = Array.isArray(pair) ? (pair as unknown[]) : bad("label");
    labels.set(parseString(key, "label"), parseString(text, "label"));
  }
  return labels;
}

function parseRecord(fields: readonly unknown[]): SnapshotRecord {
  const [, id, name, parent, kind, createdNs, updatedNs, labels, chainId, usage] = fields;
  const counts = Array.isArray(usage) ? (usage as unknown[]) : undefined;
  return {
    id: parseCount(id, "id"),
    name: parseString(name, "name"),
    parent: parseString(parent, "parent"),
    kind: kindOf(kind) ?? bad("kind"),
    createdNs: parseNs(createdNs),
    updatedNs: parseNs(updatedNs),
    labels: parseLabels(labels),
    chainId: chainId === null ? undefined : parseChainId(parseString(chainId, "chain ID")),
    usage:
      counts === undefined
        ? undefined
        : { bytes: parseCount(counts[0], "usage"), inodes: parseCount(counts[1], "usage") },
  };
}

function parseOperation(fields: unknown): Operation {
  if (!Array.isArray(fields)) return bad("operation");
  const list = fields as readonly unknown[];
  switch (list[0]) {
    case "b":
      if (list[1] !== FORMAT_VERSION) {
        throw new DaemonError(
          "failed-precondition",
          `journal has format ${String(list[1])}; this program knows ${FORMAT_VERSION}`,
        );
      }
      return { kind: "begin", nextId: parseCount(list[2], "next id") };
    case "o":
      return { kind: "owner", uuid: parseString(list[1], "owner") };
    case "d":
      return { kind: "delete", name: parseString(list[1], "name") };
    case "p":
      return { kind: "put", record: parseRecord(list) };
    default:
      return bad("operation");
  }
}

/** Throws `data-loss`: the frame's checksum was right, so the content must be. */
export function parseOperations(payload: Buffer): Operation[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(payload.toString());
  } catch (error) {
    throw new DaemonError("data-loss", "journal frame is not JSON", { cause: error });
  }
  if (!Array.isArray(parsed)) return bad("frame");
  return (parsed as readonly unknown[]).map((fields) => parseOperation(fields));
}

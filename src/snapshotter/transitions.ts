/**
 * What each call does to the metadata: checked and written inside one transaction.
 * Source: containerd core/snapshots/storage, bolt.go, whose errors clients know.
 */
import { DaemonError } from "../base/errors.ts";
import type { ChainId } from "../oci/index.ts";
import { LABEL_SNAPSHOT_REF } from "./labels.ts";
import type { Transaction } from "./metastore/metastore.ts";
import type { Labels, SnapshotRecord, SnapshotUsage } from "./snapshot-info.ts";

type Reader = Pick<Transaction, "get">;

export function requireSnapshot(reader: Reader, name: string): SnapshotRecord {
  const record = reader.get(name);
  if (record === undefined) throw new DaemonError("not-found", `snapshot ${name} does not exist`);
  return record;
}

/** The parent's record; undefined for the bottom of a chain. */
export function requireParent(reader: Reader, parent: string): SnapshotRecord | undefined {
  if (parent === "") return undefined;
  const record = reader.get(parent);
  if (record === undefined) {
    throw new DaemonError("not-found", `parent snapshot ${parent} does not exist`);
  }
  if (record.kind !== "committed") {
    throw new DaemonError("invalid-argument", `parent ${parent} is not a committed snapshot`);
  }
  return record;
}

export function requireAbsent(reader: Reader, key: string): void {
  if (reader.get(key) !== undefined) {
    throw new DaemonError("already-exists", `snapshot ${key} already exists`);
  }
}

/** Source: containerd core/metadata/boltutil, WriteLabels: an empty value is no label. */
function withoutEmpty(labels: Labels): Labels {
  return new Map([...labels].filter(([, value]) => value !== ""));
}

export interface NewSnapshot {
  readonly id: number;
  readonly kind: "active" | "view";
  readonly key: string;
  readonly parent: string;
  readonly labels: Labels;
}

export function insertSnapshot(transaction: Transaction, input: NewSnapshot): SnapshotRecord {
  requireParent(transaction, input.parent);
  requireAbsent(transaction, input.key);
  const now = transaction.now();
  const record: SnapshotRecord = {
    id: input.id,
    name: input.key,
    parent: input.parent,
    kind: input.kind,
    createdNs: now,
    updatedNs: now,
    labels: withoutEmpty(input.labels),
    chainId: undefined,
    usage: undefined,
  };
  transaction.put(record);
  return record;
}

export interface NewClaim {
  readonly id: number;
  readonly name: string;
  readonly parent: string;
  readonly chainId: ChainId;
  readonly labels: Labels;
  readonly usage: SnapshotUsage;
}

/**
 * Commits a claimed snapshot. It may be there already: another namespace's, or that of a call
 * whose answer was lost. Then only the label by which containerd finds it is made sure of.
 */
export function insertClaim(transaction: Transaction, input: NewClaim): SnapshotRecord {
  requireParent(transaction, input.parent);
  const known = transaction.get(input.name);
  if (known?.labels.get(LABEL_SNAPSHOT_REF) === input.chainId) return known;
  const now = transaction.now();
  const record: SnapshotRecord = {
    id: known?.id ?? input.id,
    name: input.name,
    parent: input.parent,
    kind: "committed",
    createdNs: known?.createdNs ?? now,
    updatedNs: now,
    labels: withoutEmpty(input.labels),
    chainId: input.chainId,
    usage: input.usage,
  };
  transaction.put(record);
  return record;
}

export interface CommitInput {
  readonly name: string;
  readonly key: string;
  readonly labels: Labels;
  /** Usually empty: as prepared. */
  readonly parent: string;
}

/** Labels are replaced, not inherited, and the times begin anew, as in containerd. */
export function commitActive(transaction: Transaction, input: CommitInput): SnapshotRecord {
  const { name, key } = input;
  requireAbsent(transaction, name);
  const active = requireSnapshot(transaction, key);
  if (active.kind !== "active") {
    throw new DaemonError("failed-precondition", `snapshot ${key} is not active`);
  }
  if (active.parent !== "" && input.parent !== "" && active.parent !== input.parent) {
    throw new DaemonError(
      "invalid-argument",
      `snapshot ${key} has the parent ${active.parent}, it cannot be changed to ${input.parent}`,
    );
  }
  const parent = active.parent === "" ? input.parent : active.parent;
  requireParent(transaction, parent);
  const now = transaction.now();
  const record: SnapshotRecord = {
    ...active,
    name,
    parent,
    kind: "committed",
    createdNs: now,
    updatedNs: now,
    labels: withoutEmpty(input.labels),
  };
  transaction.delete(key);
  transaction.put(record);
  return record;
}

/** Returns what was removed. */
export function removeSnapshot(transaction: Transaction, key: string): SnapshotRecord {
  const record = requireSnapshot(transaction, key);
  if (transaction.hasChildren(key)) {
    // containerd's suite looks for the word "remove".
    throw new DaemonError("failed-precondition", `cannot remove snapshot ${key}: it has children`);
  }
  transaction.delete(key);
  return record;
}

const LABEL_PATH = "labels.";

/** `paths`: `labels` or `labels.KEY`; none replaces all labels. Nothing else is mutable. */
export function updateLabels(
  transaction: Transaction,
  input: { readonly name: string; readonly labels: Labels; readonly paths: readonly string[] },
): SnapshotRecord {
  const record = requireSnapshot(transaction, input.name);
  let labels = new Map(record.labels);
  for (const path of input.paths.length === 0 ? ["labels"] : input.paths) {
    if (path === "labels") {
      labels = new Map(input.labels);
    } else if (path.startsWith(LABEL_PATH)) {
      const key = path.slice(LABEL_PATH.length);
      labels.set(key, input.labels.get(key) ?? "");
    } else {
      throw new DaemonError(
        "invalid-argument",
        `cannot update field ${path.slice(0, 100)} of snapshot ${input.name}`,
      );
    }
  }
  const updated = { ...record, labels: withoutEmpty(labels), updatedNs: transaction.now() };
  transaction.put(updated);
  return updated;
}

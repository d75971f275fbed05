/** containerd's Snapshots messages and our types: conversion, nothing else. */
import { mapField, messageOf, stringField, timestampMessage } from "../containerd/fields.ts";
import type { Mount, SnapshotInfo, SnapshotKind } from "../snapshot-info.ts";

/** Source: snapshots.proto, enum Kind. */
const KINDS: Readonly<Record<SnapshotKind, number>> = { view: 1, active: 2, committed: 3 };

export function infoMessage(info: SnapshotInfo): object {
  return {
    name: info.name,
    parent: info.parent,
    kind: KINDS[info.kind],
    created_at: timestampMessage(info.createdNs),
    updated_at: timestampMessage(info.updatedNs),
    labels: Object.fromEntries(info.labels),
  };
}

export function mountsMessage(mounts: readonly Mount[]): object {
  return { mounts };
}

/** The mutable part of an Info. */
export function labelsOfInfo(request: unknown): {
  readonly name: string;
  readonly labels: Map<string, string>;
} {
  const info = messageOf(request)["info"];
  return { name: stringField(info, "name"), labels: mapField(info, "labels") };
}

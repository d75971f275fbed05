/** A snapshot as the metastore keeps it. */
import type { Metastore } from "../../../src/snapshotter/metastore/metastore.ts";
import type { SnapshotRecord } from "../../../src/snapshotter/snapshot-info.ts";

/** An active snapshot without a parent, with the next free id and one label. */
export function sampleRecord(metastore: Metastore, name: string, label: string): SnapshotRecord {
  return {
    id: metastore.reserveId(),
    name,
    parent: "",
    kind: "active",
    createdNs: 1n,
    updatedNs: 2n,
    labels: new Map([["containerd.io/snapshot/x", label]]),
    chainId: undefined,
    usage: undefined,
  };
}

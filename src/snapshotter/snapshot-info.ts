/** Snapshots as containerd sees them. Source: containerd core/snapshots, type Info. */
import type { ChainId } from "../oci/index.ts";

export type SnapshotKind = "active" | "view" | "committed";
export type Labels = ReadonlyMap<string, string>;

export interface SnapshotInfo {
  readonly name: string;
  /** Empty for the bottom of a chain. */
  readonly parent: string;
  readonly kind: SnapshotKind;
  /** Nanoseconds since the Unix epoch. */
  readonly createdNs: bigint;
  readonly updatedNs: bigint;
  readonly labels: Labels;
}

export interface SnapshotUsage {
  readonly bytes: number;
  readonly inodes: number;
}

export interface SnapshotRecord extends SnapshotInfo {
  /** Names the snapshot's folder; never used twice. */
  readonly id: number;
  /** Set on a claimed snapshot: its content is the image provider's, it has no folder. */
  readonly chainId: ChainId | undefined;
  /** Of a committed snapshot; undefined until it has been counted. */
  readonly usage: SnapshotUsage | undefined;
}

/** Source: containerd `containerd.types.Mount`. The client mounts, not the snapshotter. */
export interface Mount {
  readonly type: "bind" | "overlay";
  readonly source: string;
  readonly target: string;
  readonly options: readonly string[];
}

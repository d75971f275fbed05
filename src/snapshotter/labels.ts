/** The labels that reach a snapshotter. Sources: containerd core/snapshots, pkg/labels, CRI. */
import { DaemonError } from "../base/errors.ts";
import { KEY_BYTES_MAX, LABEL_BYTES_MAX, LABELS_PER_SNAPSHOT_MAX } from "./limits.ts";
import type { Labels } from "./snapshot-info.ts";

/** The chain ID that the unpacker wants: a Prepare with it may be answered AlreadyExists. */
export const LABEL_SNAPSHOT_REF = "containerd.io/snapshot.ref";
export const LABEL_UID_MAPPING = "containerd.io/snapshot/uidmapping";
export const LABEL_GID_MAPPING = "containerd.io/snapshot/gidmapping";
/** Since containerd 2.3, on layers above the first. */
export const LABEL_PARENT_CHAIN_ID = "containerd.io/snapshot/parent-chain-id";
export const LABEL_IMAGE_REF = "containerd.io/snapshot/cri.image-ref";
export const LABEL_MANIFEST_DIGEST = "containerd.io/snapshot/cri.manifest-digest";

/** On manifests in the content store: the config that they refer to. */
export const LABEL_GC_CONFIG = "containerd.io/gc.ref.content.config";
/** On content: `…source.HOSTNAME` = comma-separated repositories. The port is lost. */
export const LABEL_DISTRIBUTION_SOURCE = "containerd.io/distribution.source.";

/** Throws `invalid-argument` where containerd's own validation would. */
export function checkLabels(labels: Labels): void {
  if (labels.size > LABELS_PER_SNAPSHOT_MAX) {
    throw new DaemonError(
      "invalid-argument",
      `${labels.size} labels; at most ${LABELS_PER_SNAPSHOT_MAX} are kept`,
    );
  }
  for (const [key, value] of labels) {
    const bytes = Buffer.byteLength(key) + Buffer.byteLength(value);
    if (bytes > LABEL_BYTES_MAX) {
      throw new DaemonError(
        "invalid-argument",
        `label ${key.slice(0, 100)} and its value are ${bytes} bytes; at most ${LABEL_BYTES_MAX}`,
      );
    }
  }
}

/** Throws `invalid-argument` for an empty or oversized key or name. */
export function checkKey(key: string, what: string): void {
  const bytes = Buffer.byteLength(key);
  if (bytes === 0 || bytes > KEY_BYTES_MAX) {
    throw new DaemonError("invalid-argument", `${what} of ${bytes} bytes; 1 to ${KEY_BYTES_MAX}`);
  }
}

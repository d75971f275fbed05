/**
 * From a chain of snapshots to the mount that the client makes. Pure.
 * Source: containerd plugins/snapshots/overlay, func mounts.
 */
import { DaemonError } from "../base/errors.ts";
import { LABEL_GID_MAPPING, LABEL_UID_MAPPING } from "./labels.ts";
import { LOWER_LAYERS_MAX } from "./limits.ts";
import type { Labels, Mount } from "./snapshot-info.ts";

export interface OverlayFeatures {
  /** The kernel knows `index`: switch it off, so that a lower layer may be shared. */
  readonly indexOff: boolean;
  /** In a user namespace whiteouts and opaque marks are user.* xattrs. */
  readonly userXattr: boolean;
  /** The plugin declares the capability `remap-ids`: ID maps become mount options. */
  readonly remapIds: boolean;
}

export interface MountInput {
  readonly kind: "active" | "view";
  readonly upper: string;
  readonly work: string;
  /** Nearest first; a claimed chain is one folder, the last. */
  readonly lowers: readonly string[];
  readonly labels: Labels;
}

/** overlayfs splits its options at these and they cannot be quoted for every reader on the way. */
const OPTION_BREAKERS = /[,:\\"\0]/;

/** Throws `invalid-argument` for a folder that cannot stand in an overlay option. */
export function checkMountPath(path: string): void {
  if (!path.startsWith("/") || OPTION_BREAKERS.test(path)) {
    throw new DaemonError(
      "invalid-argument",
      `path must be absolute and without , : \\ or ": ${JSON.stringify(path)}`,
    );
  }
}

function idMapOptions(labels: Labels, features: OverlayFeatures): string[] {
  if (!features.remapIds) return [];
  const uid = labels.get(LABEL_UID_MAPPING);
  const gid = labels.get(LABEL_GID_MAPPING);
  return [
    ...(uid === undefined ? [] : [`uidmap=${uid}`]),
    ...(gid === undefined ? [] : [`gidmap=${gid}`]),
  ];
}

/**
 * 128 lowers make an option string above one page: containerd shortens it itself (it changes into
 * the common folder before mount(2)), so it is returned as it is.
 */
export function composeMounts(input: MountInput, features: OverlayFeatures): Mount[] {
  const { kind, lowers } = input;
  if (lowers.length > LOWER_LAYERS_MAX) {
    throw new DaemonError(
      "failed-precondition",
      `${lowers.length} layers; overlayfs takes at most ${LOWER_LAYERS_MAX}`,
    );
  }
  const mapOptions = idMapOptions(input.labels, features);
  const [only] = lowers;
  // Without two folders there is nothing to overlay.
  if (only === undefined || (kind === "view" && lowers.length === 1)) {
    const source = only ?? input.upper;
    const options = [...mapOptions, kind === "view" ? "ro" : "rw", "rbind"];
    return [{ type: "bind", source, target: "", options }];
  }
  const options = [
    ...mapOptions,
    ...(kind === "active" ? [`workdir=${input.work}`, `upperdir=${input.upper}`] : []),
    `lowerdir=${lowers.join(":")}`,
    ...(features.userXattr ? ["userxattr"] : []),
    ...(features.indexOff ? ["index=off"] : []),
  ];
  return [{ type: "overlay", source: "overlay", target: "", options }];
}

export interface RootOwner {
  readonly uid: number;
  readonly gid: number;
}

const ID_MAX = 0xffff_ffff;

/**
 * The host ID of a map's root. Source: containerd core/snapshots, `containerID:hostID:size`,
 * several separated by commas. Throws `invalid-argument`.
 */
export function mappedRootId(mapping: string): number {
  for (const entry of mapping.split(",")) {
    const match = /^(\d{1,10}):(\d{1,10}):(\d{1,10})$/.exec(entry);
    if (match === null) break;
    const [inside, outside, size] = match.slice(1).map(Number);
    if (inside === 0 && size !== 0 && outside !== undefined && outside <= ID_MAX) return outside;
  }
  throw new DaemonError("invalid-argument", `ID map has no root: ${mapping.slice(0, 100)}`);
}

/** Who owns the root of a container's own snapshot, where its labels carry ID maps. */
export function mappedRootOwner(labels: Labels): RootOwner | undefined {
  const uid = labels.get(LABEL_UID_MAPPING);
  const gid = labels.get(LABEL_GID_MAPPING);
  if (uid === undefined && gid === undefined) return undefined;
  return { uid: mappedRootId(uid ?? ""), gid: mappedRootId(gid ?? "") };
}

/** The image config: which changesets make the root. Source: OCI image-spec v1.1, config.md. */
import { DaemonError } from "../base/errors.ts";
import { tryParseDigest, parseDiffId } from "./digest.ts";
import type { DiffId } from "./digest.ts";
import {
  jsonObject,
  optionalArray,
  optionalString,
  parseJsonDocument,
  requiredObject,
} from "./json.ts";
import { HISTORY_MAX, LAYERS_MAX } from "./limits.ts";
import { tryPlatformOfJson } from "./platform.ts";
import type { Platform } from "./platform.ts";

export interface HistoryEntry {
  readonly createdBy: string;
  readonly comment: string;
  /** An instruction that changed only the config. */
  readonly isEmptyLayer: boolean;
}

export interface ImageConfig {
  /** Undefined where the builder left it out. */
  readonly platform: Platform | undefined;
  /** Bottom first; one per layer of the manifest. */
  readonly diffIds: readonly DiffId[];
  readonly history: readonly HistoryEntry[];
}

/** Dockerfile lines with here-documents are long. */
const HISTORY_CHARS_MAX = 1024 * 1024;

/** Throws `data-loss`. */
export function parseImageConfig(bytes: Uint8Array): ImageConfig {
  const node = parseJsonDocument(bytes, "config");
  const rootfs = requiredObject(node, "rootfs");
  const type = optionalString(rootfs, "type", { charsMax: 64 });
  if (type !== "layers") throw new DaemonError("data-loss", "config.rootfs.type: not layers");
  const diffIds = optionalArray(rootfs, "diff_ids", { max: LAYERS_MAX }).map((value, position) => {
    const digest = typeof value === "string" ? tryParseDigest(value) : undefined;
    if (digest === undefined) {
      throw new DaemonError("data-loss", `config.rootfs.diff_ids[${position}]: not a digest`);
    }
    return parseDiffId(digest);
  });
  const history = optionalArray(node, "history", { max: HISTORY_MAX }).map((value, position) => {
    const entry = jsonObject(value, `config.history[${position}]`);
    const charsMax = { charsMax: HISTORY_CHARS_MAX };
    return {
      createdBy: optionalString(entry, "created_by", charsMax) ?? "",
      comment: optionalString(entry, "comment", charsMax) ?? "",
      isEmptyLayer: entry.value["empty_layer"] === true,
    };
  });
  return { platform: tryPlatformOfJson(node), diffIds, history };
}

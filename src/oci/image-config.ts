/** The image config: which changesets make the root. Source: OCI image-spec v1.1, config.md. */
import { DaemonError } from "../base/errors.ts";
import { tryParseDigest, parseDiffId } from "./digest.ts";
import type { DiffId } from "./digest.ts";
import { optionalArray, optionalString, parseJsonDocument, requiredObject } from "./json.ts";
import { LAYERS_MAX } from "./limits.ts";
import { tryPlatformOfJson } from "./platform.ts";
import type { Platform } from "./platform.ts";

export interface ImageConfig {
  /** Undefined where the builder left it out. */
  readonly platform: Platform | undefined;
  /** Bottom first; one per layer of the manifest. */
  readonly diffIds: readonly DiffId[];
}

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
  return { platform: tryPlatformOfJson(node), diffIds };
}

/** Joins manifest and config: which blob makes which layer, and whether all can be lazy. */
import { DaemonError } from "../base/errors.ts";
import type { Descriptor } from "./descriptor.ts";
import { chainIds } from "./digest.ts";
import type { ChainId, DiffId } from "./digest.ts";
import type { ImageConfig } from "./image-config.ts";
import type { ImageManifest } from "./manifest.ts";
import { layerKindOf } from "./media-type.ts";
import type { LayerKind, UnclaimableReason } from "./media-type.ts";

export interface PlannedLayer {
  /** 0 is the bottom. */
  readonly position: number;
  readonly descriptor: Descriptor;
  readonly diffId: DiffId;
  readonly chainId: ChainId;
  readonly kind: LayerKind;
}

export interface FetchPlan {
  /** Bottom first. */
  readonly layers: readonly PlannedLayer[];
  /** Blob bytes of all layers. */
  readonly blobBytes: number;
  /** Why the image cannot be lazy as a whole, layer by layer; empty when it can. */
  readonly obstacles: readonly { readonly position: number; readonly reason: UnclaimableReason }[];
}

function kindOf(descriptor: Descriptor): LayerKind {
  const kind = layerKindOf(descriptor.mediaType);
  // Docker marks foreign layers by urls too; their bytes need not be in the registry at all.
  if (kind.isClaimable && descriptor.urls.length > 0) {
    return { isClaimable: false, reason: "foreign" };
  }
  return kind;
}

/** Throws `data-loss` when the two do not describe the same number of layers. */
export function planFetch(manifest: ImageManifest, config: ImageConfig): FetchPlan {
  if (manifest.layers.length !== config.diffIds.length) {
    throw new DaemonError(
      "data-loss",
      `the manifest has ${manifest.layers.length} layers, ` +
        `the config has ${config.diffIds.length} diff IDs`,
    );
  }
  const chains = chainIds(config.diffIds);
  const layers: PlannedLayer[] = [];
  for (const [position, descriptor] of manifest.layers.entries()) {
    const diffId = config.diffIds[position];
    const chainId = chains[position];
    if (diffId === undefined || chainId === undefined) break;
    layers.push({ position, descriptor, diffId, chainId, kind: kindOf(descriptor) });
  }
  return {
    layers,
    blobBytes: layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0),
    obstacles: layers.flatMap(({ position, kind }) =>
      kind.isClaimable ? [] : [{ position, reason: kind.reason }],
    ),
  };
}

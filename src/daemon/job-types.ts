/** What the image service asks of a job process, and what that answers. JSON both ways. */
import { z } from "zod";
import type { LayerFillPlan } from "../cache/index.ts";
import type { RegistryOptions } from "../registry/index.ts";

/** Reads a layer's blob once and writes its map; fills the cache as it goes by. */
export interface LayerJob {
  readonly kind: "layer";
  /** Tried in this order. */
  readonly sources: readonly string[];
  readonly registry: RegistryOptions;
  readonly digest: string;
  readonly size: number;
  readonly mediaType: string;
  readonly diffId: string;
  readonly mapPath: string;
  readonly fill: LayerFillPlan | undefined;
}

/** Merges the metadata of layers, bottom first. */
export interface MergeJob {
  readonly kind: "merge";
  readonly mapPaths: readonly string[];
  readonly target: string;
}

export type Job = LayerJob | MergeJob;

export const layerJobResultSchema = z.object({
  /** Tar bytes from the start that the fill kept; 0 without one. */
  keptBytes: z.int().min(0),
  /** The same of the blob. */
  keptBlobBytes: z.int().min(0),
  /** The source that had the blob. */
  source: z.string(),
});
export type LayerJobResult = z.infer<typeof layerJobResultSchema>;

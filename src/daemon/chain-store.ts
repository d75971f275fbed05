/** Merged metadata of chains, derived from the layer maps when a chain is first mounted. */
import { readdir, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { DaemonError, systemErrorName } from "../base/errors.ts";
import { SingleFlight } from "../base/single-flight.ts";
import { chainIds } from "../oci/index.ts";
import type { ChainId } from "../oci/index.ts";
import { runJob } from "./child-job.ts";
import type { ImageStore, LayerRecord } from "./image-store.ts";
import type { MergeJob } from "./job-types.ts";
import { chainMetadataPath, layerMapPath } from "./paths.ts";
import type { RootPaths } from "./paths.ts";

export class ChainStore {
  readonly #paths: RootPaths;
  readonly #images: ImageStore;
  readonly #stop: AbortSignal;
  readonly #merges = new SingleFlight<ChainId, string>();

  private constructor(paths: RootPaths, images: ImageStore, stop: AbortSignal) {
    this.#paths = paths;
    this.#images = images;
    this.#stop = stop;
  }

  static async open(
    paths: RootPaths,
    images: ImageStore,
    options: { readonly stop: AbortSignal },
  ): Promise<ChainStore> {
    for (const name of await readdir(paths.chains)) {
      if (name.endsWith(".tmp")) await unlink(join(paths.chains, name));
    }
    return new ChainStore(paths, images, options.stop);
  }

  /** Bottom first; `not-found` for a chain of no known image. */
  layersOf(chainId: ChainId): readonly LayerRecord[] {
    const layers = this.#images.chain(chainId);
    if (layers === undefined) throw new DaemonError("not-found", `chain ${chainId} is not known`);
    return layers;
  }

  /** Path of the chain's merged EROFS metadata; made when missing, by one job for all callers. */
  async metadata(chainId: ChainId, options: { readonly signal: AbortSignal }): Promise<string> {
    return this.#metadata(chainId, () => this.layersOf(chainId), options);
  }

  /** Makes the metadata of all these layers, whether or not an image that has them is recorded. */
  async merge(
    layers: readonly LayerRecord[],
    options: { readonly signal: AbortSignal },
  ): Promise<void> {
    const chainId = chainIds(layers.map(({ diffId }) => diffId)).at(-1);
    if (chainId !== undefined) await this.#metadata(chainId, () => layers, options);
  }

  async #metadata(
    chainId: ChainId,
    layers: () => readonly LayerRecord[],
    options: { readonly signal: AbortSignal },
  ): Promise<string> {
    const path = chainMetadataPath(this.#paths, chainId);
    if (await isFile(path)) return path;
    return this.#merges.run(
      chainId,
      async () => {
        const job: MergeJob = {
          kind: "merge",
          mapPaths: layers().map(({ diffId }) => layerMapPath(this.#paths, diffId)),
          target: path,
        };
        await runJob(job, { signal: this.#stop });
        return path;
      },
      { signal: options.signal, detached: true },
    );
  }
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (error) {
    if (systemErrorName(error) === "ENOENT") return false;
    throw error;
  }
}

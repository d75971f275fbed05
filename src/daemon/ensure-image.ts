/**
 * Makes an image mountable: finds its manifest, makes the map of every layer that has none, and
 * records it. All layers or none: a claim cannot be undone (containerd never fetches that layer
 * again), so nothing is recorded before the last map is complete.
 */
import { throwIfAborted } from "../base/abort.ts";
import { DaemonError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { Semaphore } from "../base/semaphore.ts";
import { SingleFlight } from "../base/single-flight.ts";
import { chainIds } from "../oci/index.ts";
import type { ChainId, DiffId, Digest } from "../oci/index.ts";
import type { ImageRecord, ImageStore, LayerRecord } from "./image-store.ts";
import { SharedWork } from "./shared-work.ts";

/** Layers waiting for a builder, over all images. */
const BUILD_QUEUE_MAX = 4096;

export interface EnsureImageRequest {
  readonly reference: string;
  readonly manifestDigest?: Digest | undefined;
  /** The image must hold this chain. */
  readonly chainId?: ChainId | undefined;
  readonly manifest?: Uint8Array | undefined;
  readonly config?: Uint8Array | undefined;
  readonly platform?: string | undefined;
  /** Further `host[:port]/repository` to try when the reference's own does not answer. */
  readonly alternatives: readonly string[];
}

/** How far the map of an image is. */
export interface EnsureProgress {
  readonly phase: "resolve" | "map";
  /** Bytes of the layers' blobs read so far, and in all (0 while unknown). */
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly layersDone: number;
  readonly layers: number;
}

export type ImageResolver = (
  request: EnsureImageRequest,
  options: { readonly signal: AbortSignal },
) => Promise<ImageRecord>;

export interface LayerMapMaker {
  has(diffId: DiffId): boolean;
  /** Reads these layers' maps to their ends; damaged ones are removed, and it answers true. */
  forgetDamaged(layers: readonly LayerRecord[]): Promise<boolean>;
  /** From another node; false: it is to be made here. */
  fetch(
    image: Digest,
    layer: LayerRecord,
    options: { readonly signal: AbortSignal },
  ): Promise<boolean>;
  /** `onProgress` is told the blob bytes read so far. */
  make(
    layer: LayerRecord,
    sources: readonly string[],
    options: {
      readonly signal: AbortSignal;
      readonly onProgress: (blobBytes: number) => void;
    },
  ): Promise<void>;
}

/** Makes the metadata of the chain of all these layers, which have maps. */
export type ChainMerger = (
  layers: readonly LayerRecord[],
  options: { readonly signal: AbortSignal },
) => Promise<void>;

type ProgressListener = (progress: EnsureProgress) => void;

export class ImageEnsurer {
  readonly #store: ImageStore;
  readonly #resolve: ImageResolver;
  readonly #maker: LayerMapMaker;
  readonly #log: Logger;
  readonly #merge: ChainMerger;
  readonly #stop: AbortSignal;
  readonly #onEnsuring: (image: ImageRecord) => () => void;
  readonly #builders: Semaphore;
  readonly #images = new SharedWork<string, EnsureProgress, ImageRecord>();
  readonly #layers = new SingleFlight<DiffId, undefined>();

  constructor(
    store: ImageStore,
    resolve: ImageResolver,
    maker: LayerMapMaker,
    log: Logger,
    options: {
      readonly builders: number;
      readonly merge: ChainMerger;
      readonly stop: AbortSignal;
      /** The image's layers are known, and its maps will be made; the result ends it. */
      readonly onEnsuring?: ((image: ImageRecord) => () => void) | undefined;
    },
  ) {
    this.#store = store;
    this.#resolve = resolve;
    this.#maker = maker;
    this.#log = log;
    this.#merge = options.merge;
    this.#stop = options.stop;
    this.#onEnsuring = options.onEnsuring ?? (() => () => undefined);
    this.#builders = new Semaphore(options.builders, { queueMax: BUILD_QUEUE_MAX });
  }

  /**
   * Joins the running work for the same image. The work goes on when the caller leaves: a retry
   * of a cancelled pull finds it further on, or done.
   */
  async ensure(
    request: EnsureImageRequest,
    options: { readonly signal: AbortSignal; readonly onProgress?: ProgressListener },
  ): Promise<ImageRecord> {
    const key = `${request.manifestDigest ?? request.reference} ${request.platform ?? ""}`;
    return this.#images.run(key, (report) => this.#work(request, report), options);
  }

  /** Makes the maps that these layers of a recorded image have lost, and the chain's metadata. */
  async remakeMaps(
    layers: readonly LayerRecord[],
    options: { readonly signal: AbortSignal },
  ): Promise<void> {
    const { signal } = options;
    const remake = async (): Promise<void> => {
      for (const layer of layers) {
        if (this.#maker.has(layer.diffId)) continue;
        const sources = this.#store.sourcesOf(layer.blobDigest);
        await this.#makeMap({ layer, sources, signal, onProgress: () => undefined });
      }
    };
    await remake();
    await this.#mergeSound(layers, remake, signal);
  }

  /** A map's metadata is only read for this: where the disk has changed it, it shows here. */
  async #mergeSound(
    layers: readonly LayerRecord[],
    remake: () => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      await this.#merge(layers, { signal });
    } catch (error) {
      throwIfAborted(signal);
      if (!(await this.#maker.forgetDamaged(layers))) throw error;
      await remake();
      await this.#merge(layers, { signal });
    }
  }

  async #work(request: EnsureImageRequest, report: ProgressListener): Promise<ImageRecord> {
    const signal = this.#stop;
    report({ phase: "resolve", doneBytes: 0, totalBytes: 0, layersDone: 0, layers: 0 });
    const image = await this.#resolve(request, { signal });
    checkHoldsChain(image, request.chainId);
    const end = this.#onEnsuring(image);
    try {
      await this.#makeMaps(image, report);
      // Whatever speaks against a mount must do so before the claim.
      await this.#mergeSound(image.layers, () => this.#makeMaps(image, report), signal);
    } finally {
      end();
    }
    throwIfAborted(signal);
    await this.#store.add(image);
    this.#log.info("image-ensured", {
      manifest: image.manifestDigest,
      reference: image.reference,
      layers: image.layers.length,
    });
    return image;
  }

  async #makeMaps(image: ImageRecord, report: ProgressListener): Promise<void> {
    const missing = image.layers.filter((layer) => !this.#maker.has(layer.diffId));
    const totalBytes = missing.reduce((sum, layer) => sum + layer.blobBytes, 0);
    const doneByLayer = new Map<DiffId, number>();
    let layersDone = image.layers.length - missing.length;
    const tell = (): void => {
      const doneBytes = [...doneByLayer.values()].reduce((sum, bytes) => sum + bytes, 0);
      report({ phase: "map", doneBytes, totalBytes, layersDone, layers: image.layers.length });
    };
    tell();
    // One failure ends the image; the other builders are told to stop.
    const failed = new AbortController();
    const signal = AbortSignal.any([this.#stop, failed.signal]);
    const results = await Promise.allSettled(
      missing.map(async (layer) => {
        try {
          await this.#makeMap({
            layer,
            image: image.manifestDigest,
            sources: image.sources,
            signal,
            onProgress: (bytes) => {
              doneByLayer.set(layer.diffId, bytes);
              tell();
            },
          });
        } catch (error) {
          failed.abort(error);
          throw error;
        }
        doneByLayer.set(layer.diffId, layer.blobBytes);
        layersDone += 1;
        tell();
      }),
    );
    if (results.some((result) => result.status === "rejected")) throw failed.signal.reason;
  }

  async #makeMap({ layer, image, sources, signal, onProgress }: MapWork): Promise<void> {
    await this.#layers.run(
      layer.diffId,
      async (flightSignal) => {
        if (this.#maker.has(layer.diffId)) return undefined;
        // Not in a builder's place: two nodes that wait for each other's maps would fill them all.
        const wait = { signal: flightSignal };
        if (image !== undefined && (await this.#maker.fetch(image, layer, wait))) return undefined;
        const release = await this.#builders.acquire(wait);
        try {
          if (this.#maker.has(layer.diffId)) return undefined;
          await this.#maker.make(layer, sources, { signal: flightSignal, onProgress });
        } finally {
          release();
        }
        return undefined;
      },
      { signal },
    );
  }
}

interface MapWork {
  readonly layer: LayerRecord;
  /** Through whose tree it may come; undefined: it is made here. */
  readonly image?: Digest;
  readonly sources: readonly string[];
  readonly signal: AbortSignal;
  readonly onProgress: (blobBytes: number) => void;
}

function checkHoldsChain(image: ImageRecord, chainId: ChainId | undefined): void {
  if (chainId === undefined) return;
  if (chainIds(image.layers.map((layer) => layer.diffId)).includes(chainId)) return;
  throw new DaemonError(
    "failed-precondition",
    `image ${image.manifestDigest} does not hold chain ${chainId}`,
  );
}

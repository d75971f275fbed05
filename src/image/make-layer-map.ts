/**
 * Makes a layer's map from its blob: the one call of the process that does this. It blocks its
 * event loop for milliseconds at a time (inflating, hashing), so nothing else should live there.
 */
import { DaemonError, withContext } from "../base/errors.ts";
import { BlockTableBuilder, type Block } from "../block/index.ts";
import { EROFS_BLOCK_BYTES, writeErofs } from "../erofs/index.ts";
import type { Digest, DiffId } from "../oci/index.ts";
import { encodeInfo, type LayerMapInfo } from "./layer-map/info.ts";
import { encodeWindow } from "./layer-map/window.ts";
import { LayerMapWriter } from "./layer-map/writer.ts";
import type { CutBlock } from "./pass/block-cutter.ts";
import { passLayer, type LayerPassProgress, type LayerPassResult } from "./pass/layer-pass.ts";

/** Receives the layer while it streams by, for example to fill a cache. */
export interface LayerMapSink {
  /**
   * Blob bytes in order, before they are decoded; valid until the call (or its promise) returns.
   */
  onBlob?(bytes: Uint8Array, blobOffset: number): Promise<void> | void;
  /** Tar bytes in order; valid until the call (or its promise) returns. */
  onTar?(bytes: Uint8Array, tarOffset: number): Promise<void> | void;
  /**
   * Every block, in order, after all its bytes went to `onTar`. Blocks of one large zstd frame
   * come together when it ends. Only if the call as a whole succeeds are they those of the layer.
   */
  onBlock?(block: Block): Promise<void> | void;
}

export interface MakeLayerMapOptions {
  readonly blob: AsyncIterable<Uint8Array>;
  readonly descriptor: {
    readonly digest: Digest;
    readonly size: number;
    readonly mediaType: string;
  };
  readonly diffId: DiffId;
  readonly mapPath: string;
  readonly signal: AbortSignal;
  readonly sink?: LayerMapSink;
  readonly onProgress?: (progress: LayerPassProgress) => void;
  /** Refuses a layer with a longer tar; LAYER_TAR_BYTES_DEFAULT_MAX otherwise. */
  readonly tarBytesMax?: number;
}

export interface MadeLayerMap {
  readonly info: LayerMapInfo;
  readonly mapBytes: number;
}

/**
 * The map has its name only if blob and tar have the digests they should. Throws `data-loss` for
 * wrong bytes, `invalid-argument` or `unimplemented` for a layer that cannot be mapped; the
 * message names layer, entry and rule. Nothing half-written remains.
 */
export async function makeLayerMap(options: MakeLayerMapOptions): Promise<MadeLayerMap> {
  try {
    await using writer = await LayerMapWriter.create(options.mapPath);
    return await make(writer, options);
  } catch (error) {
    throw withContext(error, `layer ${options.descriptor.digest}`);
  }
}

async function make(writer: LayerMapWriter, options: MakeLayerMapOptions): Promise<MadeLayerMap> {
  const { descriptor, sink } = options;
  const store = new BlockStore(writer, sink);
  const onTar = sink?.onTar?.bind(sink);
  const onBlob = sink?.onBlob?.bind(sink);
  const result = await passLayer(
    options.blob,
    {
      onBlock: (cut) => store.add(cut),
      ...(onTar === undefined ? {} : { onTar }),
      ...(onBlob === undefined ? {} : { onBlob }),
    },
    {
      signal: options.signal,
      blobBytes: descriptor.size,
      blobDigest: descriptor.digest,
      ...(options.tarBytesMax === undefined ? {} : { tarBytesMax: options.tarBytesMax }),
      ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
    },
  );
  const blocks = await store.finish();
  checkDigests(result, options);
  const info: LayerMapInfo = {
    diffId: result.diffId,
    blobDigest: result.blobDigest,
    blobBytes: descriptor.size,
    tarBytes: result.tarBytes,
    mediaType: descriptor.mediaType,
    compression: result.compression,
    ...result.counts,
  };
  const deviceBytes = Math.ceil(result.tarBytes / EROFS_BLOCK_BYTES) * EROFS_BLOCK_BYTES;
  const { fileBytes } = await writer.finish({
    info: encodeInfo(info),
    meta: [writeErofs(result.root, { devices: [{ bytes: deviceBytes }] })],
    blocks,
  });
  return { info, mapBytes: fileBytes };
}

/** Stores windows and records blocks, one behind: a window deflates while the pass goes on. */
class BlockStore {
  readonly #writer: LayerMapWriter;
  readonly #sink: LayerMapSink | undefined;
  readonly #table = new BlockTableBuilder();
  #last: { readonly cut: CutBlock; readonly window: Promise<Buffer | undefined> } | undefined;

  constructor(writer: LayerMapWriter, sink: LayerMapSink | undefined) {
    this.#writer = writer;
    this.#sink = sink;
  }

  async add(cut: CutBlock): Promise<void> {
    const { window } = cut;
    const isNeeded = window !== undefined && window.length > 0;
    const encoded = isNeeded ? encodeWindow(window) : Promise.resolve(undefined);
    // If the pass fails first, nobody waits for it any more.
    encoded.catch(() => undefined);
    await this.#storeLast();
    this.#last = { cut, window: encoded };
  }

  async finish(): Promise<Buffer> {
    await this.#storeLast();
    return this.#table.finish();
  }

  async #storeLast(): Promise<void> {
    if (this.#last === undefined) return;
    const { window: _window, ...fields } = this.#last.cut;
    const stored = await this.#last.window;
    this.#last = undefined;
    const block: Block = {
      ...fields,
      index: this.#table.count,
      windowOffset: stored === undefined ? 0 : await this.#writer.appendWindow(stored),
      windowLength: stored?.length ?? 0,
    };
    this.#table.add(block);
    await this.#sink?.onBlock?.(block);
  }
}

function checkDigests(result: LayerPassResult, options: MakeLayerMapOptions): void {
  const { descriptor, diffId } = options;
  if (result.blobDigest !== descriptor.digest) {
    throw new DaemonError("data-loss", `blob has digest ${result.blobDigest}`);
  }
  if (result.diffId !== diffId) {
    const message = `its tar has digest ${result.diffId}, the image's config says ${diffId}`;
    throw new DaemonError("data-loss", message);
  }
}

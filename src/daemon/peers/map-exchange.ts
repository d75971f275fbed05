/**
 * A layer's map from the members above: exactly one member of an image's tree, its root, makes a
 * map that nobody has, also when it dies half-way and another becomes the root.
 */
import { open, rename, rm } from "node:fs/promises";
import { onAbort, throwIfAborted } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { DaemonError, errorCode } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { writeAll } from "../../base/write-all.ts";
import { openLayerMap, unfinishedMapPath } from "../../image/index.ts";
import { digestHex } from "../../oci/index.ts";
import type { Digest } from "../../oci/index.ts";
import type {
  ExchangeClient,
  FetchedMap,
  PeerNode,
  PeerRef,
  TreePosition,
} from "../../peer/index.ts";
import type { LayerRecord } from "../image-store.ts";

/** For the first position: longer than for a read, as a second maker reads the whole image. */
const MAP_JOIN_MS_MAX = 15_000;
/** Between two rounds of asking. */
const ROUND_MS = 250;
/** Maps that do not hold what they say, before this node makes its own. */
const WRONG_MAPS_MAX = 3;
/**
 * Maps are smaller than the blobs they are of, but for many tiny files. Source: image/limits.ts.
 */
const MAP_BYTES_MAX = 1024 * 1024 * 1024;

export interface MapExchangeParts {
  readonly node: Pick<PeerNode, "onPosition" | "position">;
  readonly client: Pick<ExchangeClient, "fetchMap" | "fetchMapFrom">;
  readonly clock: Clock;
  readonly log: Logger;
}

export class MapExchange {
  readonly #parts: MapExchangeParts;

  constructor(parts: MapExchangeParts) {
    this.#parts = parts;
  }

  /**
   * True: the map is at `mapPath`, whole and checked. False: this node is to make it, because it is
   * the tree's root, or in no tree; or because those above have another: of another blob of this
   * layer (compressed otherwise, as another image has it), or wrong ones only.
   */
  async fetch(
    image: Digest,
    layer: LayerRecord,
    { mapPath, signal }: { readonly mapPath: string; readonly signal: AbortSignal },
  ): Promise<boolean> {
    const { log } = this.#parts;
    await this.#firstPosition(image, signal);
    let formerRoot: PeerRef | undefined;
    let wrong = 0;
    while (wrong < WRONG_MAPS_MAX) {
      throwIfAborted(signal);
      const position = this.#parts.node.position(image);
      if (position === undefined) return false;
      if (position.isRoot) {
        if (formerRoot === undefined) return false;
        // It may live and be at it: only its place in the tree is another.
        const from = formerRoot;
        formerRoot = undefined;
        const kept = await this.#fromFormer(from, image, layer, { mapPath, signal });
        if (kept !== undefined) return kept;
        continue;
      }
      formerRoot = position.root;
      try {
        return await this.#round(image, layer, { mapPath, signal });
      } catch (error) {
        throwIfAborted(signal);
        log.debug("map-not-fetched", { layer: layer.diffId, code: errorCode(error) });
        if (errorCode(error) === "data-loss") wrong += 1;
      }
      await this.#parts.clock.sleep(ROUND_MS, { signal });
    }
    return false;
  }

  /** As `#round`; undefined when it has not got it. */
  async #fromFormer(
    peer: PeerRef,
    image: Digest,
    layer: LayerRecord,
    { mapPath, signal }: { readonly mapPath: string; readonly signal: AbortSignal },
  ): Promise<boolean | undefined> {
    const { client, log } = this.#parts;
    try {
      const map = await client.fetchMapFrom(peer, image, digestHex(layer.diffId), { signal });
      return await this.#keep(map, layer, { mapPath, signal });
    } catch (error) {
      throwIfAborted(signal);
      log.debug("map-not-fetched", { layer: layer.diffId, code: errorCode(error) });
      return undefined;
    }
  }

  /** False: it is of another blob than this image's. Throws `data-loss` when it is wrong. */
  async #keep(
    map: FetchedMap,
    layer: LayerRecord,
    { mapPath, signal }: { readonly mapPath: string; readonly signal: AbortSignal },
  ): Promise<boolean> {
    const unfinished = unfinishedMapPath(mapPath);
    try {
      await writeMap(map, unfinished, signal);
      const { diffId } = layer;
      if (!(await isMapOf(unfinished, layer))) {
        this.#parts.log.debug("map-of-another-blob", { layer: diffId, from: map.from.id });
        return false;
      }
      await rename(unfinished, mapPath);
      this.#parts.log.info("layer-map-fetched", { diffId, bytes: map.size, from: map.from.id });
      return true;
    } finally {
      await rm(unfinished, { force: true });
    }
  }

  /** One try, as `#keep`; given up when this node's place in the tree changes. */
  async #round(
    image: Digest,
    layer: LayerRecord,
    { mapPath, signal }: { readonly mapPath: string; readonly signal: AbortSignal },
  ): Promise<boolean> {
    const { node, client } = this.#parts;
    const parentOf = (position: TreePosition | undefined): string =>
      position === undefined || position.isRoot ? "" : (position.parent?.boot ?? "");
    const before = parentOf(node.position(image));
    const moved = new AbortController();
    const stopListening = node.onPosition((changed, position) => {
      if (changed !== image || parentOf(position) === before) return;
      moved.abort(new DaemonError("unavailable", "another parent"));
    });
    try {
      const both = AbortSignal.any([signal, moved.signal]);
      const map = await client.fetchMap(image, digestHex(layer.diffId), { signal: both });
      return await this.#keep(map, layer, { mapPath, signal: both });
    } finally {
      stopListening();
    }
  }

  /** Waits for the first word of a manager, but not for long. */
  async #firstPosition(image: Digest, signal: AbortSignal): Promise<void> {
    const { node, clock } = this.#parts;
    if (node.position(image) !== undefined) return;
    await new Promise<void>((resolve) => {
      const finish = (): void => {
        stopListening();
        stopTimer();
        stopAbort();
        resolve();
      };
      const stopTimer = clock.timer(MAP_JOIN_MS_MAX, finish);
      const stopAbort = onAbort(signal, finish);
      const stopListening = node.onPosition((changed, position) => {
        if (changed === image && position !== undefined) finish();
      });
    });
  }
}

async function writeMap(map: FetchedMap, path: string, signal: AbortSignal): Promise<void> {
  if (map.size > MAP_BYTES_MAX) {
    throw new DaemonError("data-loss", `${map.from.id} has a map of ${map.size} bytes`);
  }
  const file = await open(path, "w", 0o600);
  try {
    let offset = 0;
    for await (const piece of map.pieces) {
      throwIfAborted(signal);
      await writeAll(file, piece, offset);
      offset += piece.length;
    }
    if (offset !== map.size) throw new DaemonError("unavailable", "the map was cut short");
    await file.sync();
  } finally {
    await file.close();
  }
}

/**
 * A peer's map is trusted like the cluster key; what it says of itself must still be true. False
 * for a right map of another blob: the reader's registry need not have that one.
 */
async function isMapOf(path: string, layer: LayerRecord): Promise<boolean> {
  await using map = await openLayerMap(path, { diffId: layer.diffId });
  await map.verify();
  const { blobDigest, blobBytes } = map.info;
  return blobDigest === layer.blobDigest && blobBytes === layer.blobBytes;
}

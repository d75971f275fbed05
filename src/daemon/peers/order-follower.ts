/**
 * Asks ahead in the parent's fetch order: reads that depend on each other then cost one depth of
 * the tree together, not one each.
 */
import { errorCode } from "../../base/errors.ts";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { BlockResolver } from "../../block/index.ts";
import type { Digest } from "../../oci/index.ts";
import type { ExchangeClient, OrderEntry, PeerNode, TreePosition } from "../../peer/index.ts";

/** Before a parent that broke off is followed again. */
const RETRY_MS = 1000;

export interface OrderFollowerParts {
  readonly node: Pick<PeerNode, "onPosition">;
  readonly client: Pick<ExchangeClient, "followOrder">;
  readonly resolver: Pick<BlockResolver, "hasLayer" | "prefetch">;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Followed {
  readonly parentBoot: string;
  readonly stop: AbortController;
}

export class OrderFollower implements Disposable {
  readonly #parts: OrderFollowerParts;
  readonly #followed = new Map<string, Followed>();
  readonly #stopListening: () => void;

  constructor(parts: OrderFollowerParts) {
    this.#parts = parts;
    this.#stopListening = parts.node.onPosition((image, position) => {
      this.#moved(image as Digest, position);
    });
  }

  [Symbol.dispose](): void {
    this.#stopListening();
    for (const { stop } of this.#followed.values()) stop.abort();
    this.#followed.clear();
  }

  #moved(image: Digest, position: TreePosition | undefined): void {
    const parent = position?.parent;
    const known = this.#followed.get(image);
    if (known?.parentBoot === parent?.boot) return;
    known?.stop.abort();
    this.#followed.delete(image);
    if (parent === undefined) return;
    const stop = new AbortController();
    this.#followed.set(image, { parentBoot: parent.boot, stop });
    void this.#follow(image, parent, stop.signal);
  }

  /** Never rejects. */
  async #follow(
    image: Digest,
    parent: NonNullable<TreePosition["parent"]>,
    signal: AbortSignal,
  ): Promise<void> {
    const { client, clock, log } = this.#parts;
    let from = 0;
    while (!signal.aborted) {
      try {
        for await (const batch of client.followOrder(parent, image, { from, signal })) {
          from = batch.at + batch.entries.length;
          this.#prefetch(batch.entries, signal);
        }
      } catch (error) {
        if (!isOver(signal)) log.debug("order-not-followed", { image, code: errorCode(error) });
      }
      await clock.sleep(RETRY_MS, { signal }).catch(() => undefined);
    }
  }

  #prefetch(entries: readonly OrderEntry[], signal: AbortSignal): void {
    const { resolver } = this.#parts;
    const byLayer = new Map<string, number[]>();
    for (const { layerId, block } of entries) {
      if (!resolver.hasLayer(layerId)) continue;
      const blocks = byLayer.get(layerId) ?? [];
      blocks.push(block);
      byLayer.set(layerId, blocks);
    }
    for (const [layerId, blocks] of byLayer) {
      resolver.prefetch(layerId, blocks, { signal }).catch(() => undefined); // readers tell
    }
  }
}

/** Asked anew: the type checker believes that nothing changes during an await. */
function isOver(signal: AbortSignal): boolean {
  return signal.aborted;
}

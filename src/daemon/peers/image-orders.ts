/**
 * In which order an image's blocks were first wanted here, over all of its layers: for children.
 */
import { DaemonError } from "../../base/errors.ts";
import type { OrderEntry, OrderProvider } from "../../peer/index.ts";
import type { TreeImages } from "./tree-images.ts";

/** Blocks of one image that are remembered: the first ones, which are those of its start. */
const IMAGE_ORDER_BLOCKS_MAX = 65_536;
/** Entries that travel together. */
const BATCH_ENTRIES_MAX = 1024;

export class ImageOrders implements OrderProvider {
  readonly #images: Pick<TreeImages, "imagesWith" | "image">;
  readonly #orders = new Map<string, OrderEntry[]>();
  #waiting: (() => void)[] = [];

  constructor(images: Pick<TreeImages, "imagesWith" | "image">) {
    this.#images = images;
  }

  /** A block was wanted for the first time. */
  add(layerId: string, block: number): void {
    for (const image of this.#images.imagesWith(layerId)) {
      const order = this.#orders.get(image) ?? [];
      this.#orders.set(image, order);
      if (order.length < IMAGE_ORDER_BLOCKS_MAX) order.push({ layerId, block });
    }
    this.#wake();
  }

  async *since(
    image: string,
    from: number,
    { signal }: { readonly signal: AbortSignal },
  ): AsyncGenerator<readonly OrderEntry[]> {
    if (this.#images.image(image) === undefined) {
      throw new DaemonError("not-found", `${image} is not used here`);
    }
    const stop = (): void => {
      this.#wake();
    };
    signal.addEventListener("abort", stop, { once: true });
    try {
      let at = from;
      while (!signal.aborted) {
        const order = this.#orders.get(image) ?? [];
        const batch = order.slice(at, at + BATCH_ENTRIES_MAX);
        at += batch.length;
        if (batch.length > 0) yield batch;
        else await new Promise<void>((resolve) => this.#waiting.push(resolve));
      }
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }
}

/**
 * Which images' trees this node is in. It joins when an image is made mountable or mounted, and
 * leaves a while after its last use; a layer's blocks come through the trees of the images that
 * have it.
 */
import type { Clock } from "../../base/clock.ts";
import type { PeerNode } from "../../peer/index.ts";
import { digestHex } from "../../oci/index.ts";
import type { Digest } from "../../oci/index.ts";
import type { ImageRecord } from "../image-store.ts";

/** FaaSNet (USENIX ATC'21) 3.3: a VM that is idle for 15 minutes is reclaimed. */
export const TREE_IDLE_MS = 15 * 60_000;
const SWEEP_MS = 60_000;

interface Joined {
  readonly image: ImageRecord;
  /** First of all times, ms. */
  readonly joinedMs: number;
  lastUseMs: number;
  /** Ensures under way. */
  ensuring: number;
}

export type TreeNode = Pick<PeerNode, "join" | "leave">;

export class TreeImages implements Disposable {
  readonly #node: TreeNode;
  readonly #clock: Clock;
  readonly #joined = new Map<Digest, Joined>();
  /** By layer id; the image joined first comes first. */
  readonly #byLayer = new Map<string, Digest[]>();
  /** Whether containers still use the image. */
  #isMounted: (image: ImageRecord) => boolean = () => false;
  #cancel: () => void;

  constructor(node: TreeNode, clock: Clock) {
    this.#node = node;
    this.#clock = clock;
    this.#cancel = clock.timer(SWEEP_MS, () => {
      this.#sweep();
    });
  }

  watchMounts(isMounted: (image: ImageRecord) => boolean): void {
    this.#isMounted = isMounted;
  }

  /** Joins the image's tree, or notes that it is used. */
  use(image: ImageRecord): void {
    const nowMs = this.#clock.nowMs();
    const known = this.#joined.get(image.manifestDigest);
    if (known !== undefined) {
      known.lastUseMs = nowMs;
      return;
    }
    const joined = { image, joinedMs: nowMs, lastUseMs: nowMs, ensuring: 0 };
    this.#joined.set(image.manifestDigest, joined);
    for (const { diffId } of image.layers) {
      const images = this.#byLayer.get(digestHex(diffId)) ?? [];
      if (!images.includes(image.manifestDigest)) images.push(image.manifestDigest);
      this.#byLayer.set(digestHex(diffId), images);
    }
    this.#node.join(image.manifestDigest);
  }

  /** The image is being made mountable, until the result is called. */
  ensuring(image: ImageRecord): () => void {
    this.use(image);
    const joined = this.#joined.get(image.manifestDigest);
    if (joined !== undefined) joined.ensuring += 1;
    let isOver = false;
    return () => {
      if (isOver || joined === undefined) return;
      isOver = true;
      joined.ensuring -= 1;
      joined.lastUseMs = this.#clock.nowMs();
    };
  }

  isEnsuring(image: string): boolean {
    return (this.#joined.get(image as Digest)?.ensuring ?? 0) > 0;
  }

  /** When the image was joined, local clock, ms. */
  joinedMs(image: string): number | undefined {
    return this.#joined.get(image as Digest)?.joinedMs;
  }

  image(image: string): ImageRecord | undefined {
    return this.#joined.get(image as Digest)?.image;
  }

  images(): readonly ImageRecord[] {
    return [...this.#joined.values()].map(({ image }) => image);
  }

  imagesWith(layerId: string): readonly Digest[] {
    return this.#byLayer.get(layerId) ?? [];
  }

  [Symbol.dispose](): void {
    this.#cancel();
  }

  #sweep(): void {
    const nowMs = this.#clock.nowMs();
    for (const joined of [...this.#joined.values()]) {
      if (joined.ensuring > 0 || this.#isMounted(joined.image)) joined.lastUseMs = nowMs;
      else if (nowMs - joined.lastUseMs >= TREE_IDLE_MS) this.#leave(joined.image);
    }
    this.#cancel = this.#clock.timer(SWEEP_MS, () => {
      this.#sweep();
    });
  }

  #leave({ manifestDigest, layers }: ImageRecord): void {
    this.#joined.delete(manifestDigest);
    for (const { diffId } of layers) {
      const id = digestHex(diffId);
      const rest = this.imagesWith(id).filter((digest) => digest !== manifestDigest);
      if (rest.length === 0) this.#byLayer.delete(id);
      else this.#byLayer.set(id, rest);
    }
    this.#node.leave(manifestDigest);
  }
}

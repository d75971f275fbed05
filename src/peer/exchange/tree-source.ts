/** The members above us in an image's function tree, as one source of a layer's blocks. */
import { DaemonError } from "../../base/errors.ts";
import { FETCH_PRIORITY } from "../../block/index.ts";
import type {
  BlobRun,
  Block,
  BlockSource,
  BlockTable,
  SourceFetchOptions,
} from "../../block/index.ts";
import type { Digest } from "../../oci/index.ts";
import { rungsOf } from "./position.ts";
import type { BlockRange } from "./protocol.ts";
import { TreeRead } from "./tree-read.ts";
import type { TreeReadContext } from "./tree-read.ts";

export interface TreeSourceLayer {
  /** Diff ID, hex. */
  readonly id: string;
  readonly blobDigest: Digest;
  readonly table: BlockTable;
}

export class TreeSource implements BlockSource {
  readonly name = "parent";
  readonly origin: string;
  readonly #context: TreeReadContext;
  readonly #image: Digest;
  readonly #layer: TreeSourceLayer;
  /** Who sent which block of a run, for convicting. */
  readonly #suppliers = new WeakMap<BlobRun, Map<number, string | undefined>>();

  constructor(context: TreeReadContext, image: Digest, layer: TreeSourceLayer) {
    this.#context = context;
    this.#image = image;
    this.#layer = layer;
    this.origin = `tree ${image}`;
  }

  /** Whether there is anybody to ask now: not at the root, nor outside of the tree. */
  get hasPeers(): boolean {
    const position = this.#context.positions(this.#image);
    return position !== undefined && rungsOf(position, this.#context.selfId).length > 0;
  }

  /**
   * The run's bytes, as the nearest member that has them sends them; zeros in gaps between blocks.
   * An empty piece now and then is a sign of life. Ends with `unavailable` when no member has a
   * block, `aborted` when two of them sent different bytes.
   */
  async fetch(run: BlobRun, options: SourceFetchOptions): Promise<AsyncIterable<Uint8Array>> {
    if (!this.hasPeers) {
      throw new DaemonError("unavailable", "no member is above us in the image's tree");
    }
    const suppliers = new Map<number, string | undefined>();
    this.#suppliers.set(run, suppliers);
    const read = new TreeRead(this.#context, {
      image: this.#image,
      layerId: this.#layer.id,
      blobDigest: this.#layer.blobDigest,
      units: this.#unitsOf(run),
      priority: options.priority,
      isUrgent: options.isUrgent ?? (() => options.priority === FETCH_PRIORITY.reader),
      signal: options.signal,
      onBlock: (index, peerId) => {
        suppliers.set(index, peerId);
      },
    });
    return read.bytes();
  }

  /** A complete wrong block convicts whoever sent all of it. */
  onBadBlock(run: BlobRun, block: Block): void {
    const suppliers = this.#suppliers.get(run);
    const unit = this.#unitsOf(run).find(({ start }) => start === block.blobOffset);
    const peerId = suppliers?.get(block.index) ?? suppliers?.get(unit?.index ?? block.index);
    if (peerId === undefined) return;
    const reason = `block ${block.index} of layer ${this.#layer.id} has another digest`;
    this.#context.health.convict(this.#image, peerId, reason);
  }

  /** Blocks that share one range (those of a `zstd-sequential` frame) are one unit. */
  #unitsOf(run: BlobRun): BlockRange[] {
    const units: BlockRange[] = [];
    for (let index = run.firstBlock; index <= run.lastBlock; index += 1) {
      const { blobOffset: start, blobLength } = this.#layer.table.at(index);
      const last = units.at(-1);
      if (last?.start === start && last.end === start + blobLength) continue;
      units.push({ index, start, end: start + blobLength });
    }
    const [first] = units;
    if (first?.start !== run.range.start || units.at(-1)?.end !== run.range.end) {
      throw new DaemonError("internal", "the run's range is not its blocks'");
    }
    return units;
  }
}

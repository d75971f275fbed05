/**
 * Where everything stands in an image:
 *
 *     superblock, device table | inodes and directory blocks | shared xattrs | data blocks
 *
 * Whole blocks of a directory stand before the inodes of its entries: the kernel reads inodes one
 * by one, but a directory with read-ahead, which so brings the inodes along (a cold `find` makes
 * a tenth of the reads). Data blocks are those of long symlinks and inlined files whose data does
 * not fit behind the inode. An inode with data behind it stays within one block: the kernel wants
 * the data so, and older ones the symlink's inode too. The gaps this leaves are filled with the
 * inodes that follow. The root is the first inode, since its nid must fit 16 bits.
 */
import { DaemonError } from "../base/errors.ts";
import { checkInode, timeOf } from "./checks.ts";
import { joinExtents, planChunks, type ChunkPlan } from "./chunks.ts";
import { directoryBytes } from "./dirents.ts";
import {
  CHUNK_INDEX_BYTES,
  COMPACT_INODE_BYTES,
  DATA_LAYOUT,
  DEVICE_SLOT,
  EROFS_BLOCK_BYTES,
  EXTENDED_INODE_BYTES,
  IMAGE_BYTES_MAX,
  INODE_SLOT_BYTES,
  roundUp,
  SUPERBLOCK,
} from "./format.ts";
import { orderTree, type TreeOrder, type Visit } from "./tree-order.ts";
import type { ErofsInodeInput } from "./tree.ts";
import { XattrPlan } from "./xattr-plan.ts";

/** Gaps remembered for filling; the oldest is forgotten first, which keeps neighbours near. */
const GAPS_MAX = 64;

export interface BuildTime {
  readonly sec: number;
  readonly nsec: number;
}

export interface Layout {
  readonly order: TreeOrder;
  readonly xattrs: XattrPlan;
  /** The mtime of compact inodes: the commonest one. */
  readonly buildTime: BuildTime;
  /** By inode. */
  readonly nodes: readonly NodeLayout[];
  readonly sharedXattrsAt: number;
  readonly totalBytes: number;
}

export interface NodeLayout {
  readonly isExtended: boolean;
  readonly dataLayout: number;
  readonly nlink: number;
  readonly size: number;
  readonly xattrBytes: number;
  /** Chunk bits of a chunk-based file, else 0. */
  readonly chunkBits: number;
  readonly chunkCount: number;
  /** Data behind the inode: the rest after whole blocks. */
  readonly tailBytes: number;
  /** Data blocks of their own. */
  readonly blockCount: number;
  /** Set by placement: offset of the inode, first data block. */
  at: number;
  firstBlock: number;
}

export function layOut(root: ErofsInodeInput, deviceBytes: readonly number[]): Layout {
  const order = orderTree(root);
  const xattrs = new XattrPlan(order.inodes);
  const buildTime = commonestTime(order.inodes);
  const nodes = order.inodes.map((inode, index) =>
    planNode(inode, { index, order, xattrs, buildTime, deviceBytes }),
  );
  const slots = new Slots(
    SUPERBLOCK.offset + SUPERBLOCK.bytes + deviceBytes.length * DEVICE_SLOT.bytes,
  );
  placeInodes(nodes, order.visits, slots);
  const sharedXattrsAt = slots.end;
  let block = Math.ceil((sharedXattrsAt + xattrs.sharedBytes) / EROFS_BLOCK_BYTES);
  for (const [index, node] of nodes.entries()) {
    if (order.names[index] !== undefined) continue;
    node.firstBlock = block;
    block += node.blockCount;
  }
  const totalBytes = block * EROFS_BLOCK_BYTES;
  if (totalBytes > IMAGE_BYTES_MAX) {
    throw new DaemonError("resource-exhausted", `metadata of ${totalBytes} bytes is too large`);
  }
  return { order, xattrs, buildTime, nodes, sharedXattrsAt, totalBytes };
}

function placeInodes(nodes: readonly NodeLayout[], visits: readonly Visit[], slots: Slots): void {
  let visited = 0;
  const placeDirectoriesUpTo = (number: number): void => {
    for (;;) {
      const visit = visits[visited];
      if (visit === undefined || visit.firstEntry > number) return;
      visited += 1;
      const directory = nodes[visit.directory];
      if (directory === undefined || directory.blockCount === 0) continue;
      directory.firstBlock = slots.placeBlocks(directory.blockCount);
    }
  };
  for (const [index, node] of nodes.entries()) {
    placeDirectoriesUpTo(index);
    node.at = slots.place(nodeBytes(node), node.tailBytes > 0);
  }
  placeDirectoriesUpTo(nodes.length);
}

interface NodeContext {
  readonly index: number;
  readonly order: TreeOrder;
  readonly xattrs: XattrPlan;
  readonly buildTime: BuildTime;
  readonly deviceBytes: readonly number[];
}

function planNode(inode: ErofsInodeInput, context: NodeContext): NodeLayout {
  const { index, order, buildTime } = context;
  const nlink = inode.nlink ?? order.links[index] ?? 1;
  checkInode(inode, nlink);
  const size = dataBytes(inode, order.names[index]);
  const { attributes } = inode;
  const isExtended =
    attributes.mtimeSec !== buildTime.sec ||
    attributes.mtimeNsec !== buildTime.nsec ||
    attributes.uid > 0xffff ||
    attributes.gid > 0xffff ||
    size > 0xffffffff ||
    nlink > 0xffff;
  const xattrBytes = context.xattrs.inlineBytes(index);
  let chunks: ChunkPlan = { bits: 0, count: 0 };
  if (inode.data.kind === "extents") {
    chunks = planChunks(size, joinExtents(inode.data, context.deviceBytes));
  }
  const isChunkBased = chunks.count > 0;
  const rest = isChunkBased ? 0 : size % EROFS_BLOCK_BYTES;
  const isInline = rest > 0 && inodeBytes(isExtended) + xattrBytes + rest <= EROFS_BLOCK_BYTES;
  const flatLayout = isInline ? DATA_LAYOUT.flatInline : DATA_LAYOUT.flatPlain;
  const ownBytes = isChunkBased ? 0 : size - (isInline ? rest : 0);
  // One shape for all: there is an object for every file.
  return {
    isExtended,
    dataLayout: isChunkBased ? DATA_LAYOUT.chunkBased : flatLayout,
    nlink,
    size,
    xattrBytes,
    chunkBits: chunks.bits,
    chunkCount: chunks.count,
    tailBytes: isInline ? rest : 0,
    blockCount: Math.ceil(ownBytes / EROFS_BLOCK_BYTES),
    at: 0,
    firstBlock: 0,
  };
}

function dataBytes(inode: ErofsInodeInput, names: readonly string[] | undefined): number {
  if (names !== undefined) return directoryBytes(names);
  if (inode.data.kind === "none") return 0;
  return inode.data.kind === "inline" ? inode.data.bytes.length : inode.data.size;
}

export function inodeBytes(isExtended: boolean): number {
  return isExtended ? EXTENDED_INODE_BYTES : COMPACT_INODE_BYTES;
}

/** Offset of the chunk indexes from the inode, which is itself 32-byte aligned. */
export function chunkIndexOffset(node: NodeLayout): number {
  return roundUp(inodeBytes(node.isExtended) + node.xattrBytes, CHUNK_INDEX_BYTES);
}

function nodeBytes(node: NodeLayout): number {
  if (node.chunkCount > 0) return chunkIndexOffset(node) + node.chunkCount * CHUNK_INDEX_BYTES;
  return inodeBytes(node.isExtended) + node.xattrBytes + node.tailBytes;
}

/** The first of the commonest times, since compact inodes have no time of their own. */
function commonestTime(inodes: readonly ErofsInodeInput[]): BuildTime {
  const counts = new Map<number, Map<number, number>>();
  let best: BuildTime = { sec: 0, nsec: 0 };
  let bestCount = 0;
  for (const inode of inodes) {
    const { sec, nsec } = timeOf(inode.attributes);
    let ofSecond = counts.get(sec);
    if (ofSecond === undefined) {
      ofSecond = new Map<number, number>();
      counts.set(sec, ofSecond);
    }
    const count = (ofSecond.get(nsec) ?? 0) + 1;
    ofSecond.set(nsec, count);
    if (count > bestCount) {
      best = { sec, nsec };
      bestCount = count;
    }
  }
  return best;
}

/** Places inodes in 32-byte slots, those that must not cross a block border apart. */
class Slots {
  end: number;
  readonly #gaps: { at: number; bytes: number }[] = [];

  constructor(start: number) {
    this.end = roundUp(start, INODE_SLOT_BYTES);
  }

  place(bytes: number, isWithinBlock: boolean): number {
    const whole = roundUp(bytes, INODE_SLOT_BYTES);
    const filled = this.#fill(whole);
    if (filled !== undefined) return filled;
    const left = EROFS_BLOCK_BYTES - (this.end % EROFS_BLOCK_BYTES);
    if (isWithinBlock && bytes > left) this.#leaveGap(left);
    const at = this.end;
    this.end += whole;
    return at;
  }

  /** The number of the first block. */
  placeBlocks(count: number): number {
    const over = this.end % EROFS_BLOCK_BYTES;
    if (over > 0) this.#leaveGap(EROFS_BLOCK_BYTES - over);
    const first = this.end / EROFS_BLOCK_BYTES;
    this.end += count * EROFS_BLOCK_BYTES;
    return first;
  }

  #leaveGap(bytes: number): void {
    if (this.#gaps.length === GAPS_MAX) this.#gaps.shift();
    this.#gaps.push({ at: this.end, bytes });
    this.end += bytes;
  }

  /** A gap lies within one block, so that anything may stand in it. */
  #fill(whole: number): number | undefined {
    const index = this.#gaps.findIndex((gap) => gap.bytes >= whole);
    const gap = this.#gaps[index];
    if (gap === undefined) return undefined;
    const at = gap.at;
    gap.at += whole;
    gap.bytes -= whole;
    if (gap.bytes === 0) this.#gaps.splice(index, 1);
    return at;
  }
}

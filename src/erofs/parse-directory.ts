/** Parses directories: whole ones, and one name by search as the kernel does. */
import { nameFault, quoteName } from "./byte-strings.ts";
import { dataLoss, DIRENT_BYTES, isDirectoryMode } from "./format.ts";
import { blockCount, flatBlock, type ErofsInode } from "./parse-inode.ts";
import { safeInt64, type ErofsImage } from "./superblock.ts";

export interface ErofsDirent {
  readonly name: string;
  readonly nid: number;
}

function checkIsDirectory(inode: ErofsInode): void {
  if (!isDirectoryMode(inode.mode)) throw dataLoss(`inode ${inode.nid} is not a directory`);
}

/** Entries in the order of their bytes, without "." and "..". */
export function parseDirectory(image: ErofsImage, inode: ErofsInode): ErofsDirent[] {
  checkIsDirectory(inode);
  const dirents: ErofsDirent[] = [];
  let before = "";
  for (let index = 0; index < blockCount(image, inode); index += 1) {
    for (const dirent of parseBlock(flatBlock(image, inode, index))) {
      if (dirent.name <= before) {
        throw dataLoss(`directory ${inode.nid} is not in order at ${quoteName(dirent.name)}`);
      }
      before = dirent.name;
      if (dirent.name === "." || dirent.name === "..") continue;
      const fault = nameFault(dirent.name);
      if (fault !== undefined) throw dataLoss(`file name ${quoteName(dirent.name)} ${fault}`);
      dirents.push(dirent);
    }
  }
  return dirents;
}

/** The nid of a name, found by halving; undefined where there is none. */
export function parseLookup(
  image: ErofsImage,
  directory: ErofsInode,
  name: string,
): number | undefined {
  checkIsDirectory(directory);
  let low = 0;
  let high = blockCount(image, directory);
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    const block = flatBlock(image, directory, middle);
    if (nameAt(block, 0, direntCount(block)) <= name) low = middle;
    else high = middle;
  }
  if (high === 0) return undefined;
  const dirents = parseBlock(flatBlock(image, directory, low));
  return dirents.find((dirent) => dirent.name === name)?.nid;
}

function parseBlock(block: Buffer): ErofsDirent[] {
  const count = direntCount(block);
  const dirents: ErofsDirent[] = [];
  for (let index = 0; index < count; index += 1) {
    const at = index * DIRENT_BYTES;
    dirents.push({ name: nameAt(block, index, count), nid: safeInt64(block, at) });
  }
  return dirents;
}

/** The first name follows the last entry, which tells how many entries there are. */
function direntCount(block: Buffer): number {
  const namesAt = block.length < DIRENT_BYTES ? 0 : block.readUInt16LE(8);
  if (namesAt === 0 || namesAt % DIRENT_BYTES !== 0 || namesAt > block.length) {
    throw dataLoss(`a directory block's names begin at ${namesAt}`);
  }
  return namesAt / DIRENT_BYTES;
}

function nameAt(block: Buffer, index: number, count: number): string {
  const start = block.readUInt16LE(index * DIRENT_BYTES + 8);
  const isLast = index + 1 === count;
  const end = isLast ? block.length : block.readUInt16LE((index + 1) * DIRENT_BYTES + 8);
  if (start < count * DIRENT_BYTES || start >= end || end > block.length) {
    throw dataLoss(`a directory block has a name from ${start} to ${end}`);
  }
  const zero = isLast ? block.indexOf(0, start) : -1;
  return block.toString("latin1", start, zero === -1 ? end : zero);
}

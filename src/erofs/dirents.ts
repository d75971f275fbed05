/**
 * Directory blocks: an array of 12-byte entries, then their names, sorted by bytes over the whole
 * directory ("." and ".." included), so that the kernel can search by halves.
 */
import { DIRENT_BYTES, EROFS_BLOCK_BYTES } from "./format.ts";

export interface DirectoryEntry {
  readonly nid: number;
  readonly type: number;
}

/** The index of the first name that no longer fits into a block that begins with `first`. */
function blockEnd(names: readonly string[], first: number): { end: number; bytes: number } {
  let bytes = 0;
  let end = first;
  for (; end < names.length; end += 1) {
    const more = DIRENT_BYTES + (names[end] ?? "").length;
    if (bytes + more > EROFS_BLOCK_BYTES) break;
    bytes += more;
  }
  return { end, bytes };
}

/** Bytes of the packed directory: whole blocks, except that the last counts what it uses. */
export function directoryBytes(names: readonly string[]): number {
  let size = 0;
  for (let first = 0; first < names.length;) {
    const { end, bytes } = blockEnd(names, first);
    size += end === names.length ? bytes : EROFS_BLOCK_BYTES;
    first = end;
  }
  return size;
}

/** Packs the directory into a zeroed target of `directoryBytes(names)`. */
export function writeDirectory(
  target: Buffer,
  names: readonly string[],
  entryOf: (name: string) => DirectoryEntry,
): void {
  let block = 0;
  for (let first = 0; first < names.length;) {
    const { end } = blockEnd(names, first);
    let nameAt = (end - first) * DIRENT_BYTES;
    for (let index = first; index < end; index += 1) {
      const name = names[index] ?? "";
      const entry = entryOf(name);
      const at = block + (index - first) * DIRENT_BYTES;
      target.writeUInt32LE(entry.nid, at);
      target.writeUInt16LE(nameAt, at + 8);
      target.writeUInt8(entry.type, at + 10);
      target.write(name, block + nameAt, "latin1");
      nameAt += name.length;
    }
    block += EROFS_BLOCK_BYTES;
    first = end;
  }
}

/**
 * Which xattrs stand inline behind their inode and which, being repeated, in the shared area.
 *
 * Source: the kernel's `struct erofs_xattr_ibody_header` (12 bytes, then 4-byte ids of shared
 * entries, then inline entries) and `struct erofs_xattr_entry` (name length, prefix index, value
 * size, name, value; padded to 4 bytes).
 */
import { DaemonError } from "../base/errors.ts";
import {
  roundUp,
  XATTR_ALIGN,
  XATTR_BYTES_PER_INODE_MAX,
  XATTR_ENTRY_BYTES,
  XATTR_HEADER_BYTES,
  XATTR_INLINE_BYTES_MAX,
  XATTR_SHARED_PER_INODE_MAX,
  XATTR_VALUE_BYTES_MAX,
} from "./format.ts";
import type { ErofsAttributes, ErofsInodeInput } from "./tree.ts";
import { quoteName } from "./byte-strings.ts";
import { encodeXattrName, isXattrAllowed, type XattrName } from "./xattr-names.ts";

interface Entry {
  readonly name: XattrName;
  readonly value: Uint8Array;
  readonly bytes: number;
  uses: number;
  /** Within the shared area; undefined while (or because) it is not shared. */
  sharedAt: number | undefined;
}

export class XattrPlan {
  readonly #entries = new Map<string, Entry>();
  readonly #ofInode = new Map<number, readonly Entry[]>();
  readonly sharedBytes: number;

  constructor(inodes: readonly ErofsInodeInput[]) {
    for (const [index, inode] of inodes.entries()) {
      if (inode.attributes.xattrs.size > 0) this.#add(index, inode.attributes);
    }
    let sharedBytes = 0;
    for (const entry of this.#entries.values()) {
      if (entry.bytes * entry.uses <= entry.bytes + 4 * entry.uses) continue;
      entry.sharedAt = sharedBytes;
      sharedBytes += entry.bytes;
    }
    this.sharedBytes = sharedBytes;
  }

  /** Bytes between the inode and its data: 0, or header, ids and inline entries. */
  inlineBytes(index: number): number {
    const entries = this.#ofInode.get(index);
    if (entries === undefined) return 0;
    const { shared, inline } = split(entries);
    const bytes = inline.reduce((sum, entry) => sum + entry.bytes, 0);
    const total = XATTR_HEADER_BYTES + 4 * shared.length + bytes;
    if (total > XATTR_INLINE_BYTES_MAX) {
      throw new DaemonError("invalid-argument", `xattrs of one file need ${total} bytes`);
    }
    return total;
  }

  /** `base` is the shared area's distance from the start of its first block. */
  writeInline(target: Buffer, at: number, index: number, base: number): void {
    const entries = this.#ofInode.get(index);
    if (entries === undefined) return;
    const { shared, inline } = split(entries);
    // The name filter's bits say "not present"; 0 promises nothing.
    target.writeUInt8(shared.length, at + 4);
    let next = at + XATTR_HEADER_BYTES;
    for (const entry of shared) {
      target.writeUInt32LE((base + (entry.sharedAt ?? 0)) / XATTR_ALIGN, next);
      next += 4;
    }
    for (const entry of inline) {
      writeEntry(target, next, entry);
      next += entry.bytes;
    }
  }

  writeShared(target: Buffer, at: number): void {
    for (const entry of this.#entries.values()) {
      if (entry.sharedAt !== undefined) writeEntry(target, at + entry.sharedAt, entry);
    }
  }

  #add(index: number, attributes: ErofsAttributes): void {
    const { mode, xattrs } = attributes;
    const entries: Entry[] = [];
    let bytes = 0;
    // By name, so that the order in which a caller filled the map does not show.
    for (const name of [...xattrs.keys()].sort()) {
      const encoded = encodeXattrName(name);
      const value = xattrs.get(name);
      if (encoded === undefined || value === undefined) continue;
      if (!isXattrAllowed(encoded, mode)) continue;
      bytes += name.length + value.length;
      if (value.length > XATTR_VALUE_BYTES_MAX || bytes > XATTR_BYTES_PER_INODE_MAX) {
        throw new DaemonError(
          "invalid-argument",
          `xattr ${quoteName(name)} of ${value.length} bytes is too large`,
        );
      }
      entries.push(this.#intern(name, encoded, value));
    }
    if (entries.length > 0) this.#ofInode.set(index, entries);
  }

  #intern(text: string, name: XattrName, value: Uint8Array): Entry {
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    const key = `${text}\0${bytes.toString("latin1")}`;
    const known = this.#entries.get(key);
    if (known !== undefined) {
      known.uses += 1;
      return known;
    }
    const size = roundUp(XATTR_ENTRY_BYTES + name.suffix.length + value.length, XATTR_ALIGN);
    const entry: Entry = { name, value, bytes: size, uses: 1, sharedAt: undefined };
    this.#entries.set(key, entry);
    return entry;
  }
}

function split(entries: readonly Entry[]): { shared: readonly Entry[]; inline: readonly Entry[] } {
  const shared = entries
    .filter((entry) => entry.sharedAt !== undefined)
    .slice(0, XATTR_SHARED_PER_INODE_MAX);
  if (shared.length === 0) return { shared, inline: entries };
  const isShared = new Set(shared);
  return { shared, inline: entries.filter((entry) => !isShared.has(entry)) };
}

function writeEntry(target: Buffer, at: number, entry: Entry): void {
  target.writeUInt8(entry.name.suffix.length, at);
  target.writeUInt8(entry.name.index, at + 1);
  target.writeUInt16LE(entry.value.length, at + 2);
  target.write(entry.name.suffix, at + XATTR_ENTRY_BYTES, "latin1");
  target.set(entry.value, at + XATTR_ENTRY_BYTES + entry.name.suffix.length);
}

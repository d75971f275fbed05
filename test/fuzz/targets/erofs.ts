/** EROFS metadata as a keeper and a merge read it, from a buffer and by offset. */
import { crc32c } from "../../../src/erofs/crc32c.ts";
import {
  defaultDirectory,
  ErofsFileReader,
  ErofsInodeInput,
  ErofsReader,
  FILE_TYPE,
  FILE_TYPE_MASK,
  isDirectoryMode,
  symlinkData,
  writeErofs,
  type ErofsInode,
} from "../../../src/erofs/index.ts";
import { tolerate, tolerateAsync } from "../target.ts";
import type { FuzzTarget } from "../target.ts";

/** A hostile image has as many inodes as its directories name. */
const INODES_MAX = 2000;
const DEVICES = [{ bytes: 64 * 512 }, { bytes: 8 * 512 }];

/** Visits what can be reached; `strict` lets refusals out. */
export function walk(reader: ErofsReader, { strict }: { readonly strict: boolean }): void {
  const read = strict ? <T>(work: () => T): T | undefined => work() : tolerate;
  const seen = new Set<number>();
  const pending = [reader.rootNid];
  for (let nid = pending.pop(); nid !== undefined; nid = pending.pop()) {
    if (seen.has(nid) || seen.size >= INODES_MAX) continue;
    seen.add(nid);
    const current = nid;
    const inode = read(() => reader.inode(current));
    if (inode === undefined) continue;
    read(() => reader.attributes(inode));
    read(() => reader.data(inode));
    if ((inode.mode & FILE_TYPE_MASK) === FILE_TYPE.symlink) read(() => reader.readlink(inode));
    if (!isDirectoryMode(inode.mode)) continue;
    const entries = read(() => reader.readDir(inode)) ?? [];
    for (const entry of entries.slice(0, 64)) read(() => reader.lookup(inode, entry.name));
    read(() => reader.lookup(inode, "name"));
    pending.push(...entries.map((entry) => entry.nid));
  }
}

async function walkFile(reader: ErofsFileReader, wait: { signal: AbortSignal }): Promise<void> {
  const visit = async (inode: ErofsInode): Promise<readonly number[]> => {
    await tolerateAsync(() => reader.xattrs(inode, wait));
    await tolerateAsync(() => reader.data(inode, wait));
    await tolerateAsync(() => reader.readlink(inode, wait));
    await tolerateAsync(() => reader.lookup(inode, "name", wait));
    if (!isDirectoryMode(inode.mode)) return [];
    const entries = (await tolerateAsync(() => reader.readDir(inode, wait))) ?? [];
    return entries.map((entry) => entry.nid);
  };
  const seen = new Set<number>();
  const pending = [reader.rootNid];
  for (let nid = pending.pop(); nid !== undefined; nid = pending.pop()) {
    if (seen.has(nid) || seen.size >= INODES_MAX) continue;
    seen.add(nid);
    const current = nid;
    const inode = await tolerateAsync(() => reader.inode(current, wait));
    if (inode !== undefined) pending.push(...(await visit(inode)));
  }
}

function node(mode: number, data?: ErofsInodeInput["data"], xattrs: [string, string][] = []) {
  const attributes = {
    ...defaultDirectory(),
    mode,
    uid: 70_000,
    mtimeSec: 1_700_000_000,
    xattrs: new Map(xattrs.map(([name, value]) => [name, Buffer.from(value)])),
  };
  return new ErofsInodeInput(attributes, data === undefined ? {} : { data });
}

function richTree(): ErofsInodeInput {
  const root = node(FILE_TYPE.directory | 0o755, undefined, [["user.root", "r"]]);
  const file = node(
    FILE_TYPE.regular | 0o644,
    {
      kind: "extents",
      size: 5000,
      extents: [
        { fileOffset: 0, length: 1024, device: 1, deviceOffset: 512 },
        { fileOffset: 4096, length: 904, device: 2, deviceOffset: 0 },
      ],
    },
    [
      ["security.capability", "\u0001\0\0\u0002"],
      ["user.shared", "shared value"],
      ["trusted.overlay.opaque", "y"],
    ],
  );
  const folder = node(FILE_TYPE.directory | 0o700, undefined, [["user.shared", "shared value"]]);
  for (let index = 0; index < 60; index += 1) {
    folder.entries?.set(`entry-${index}`, index % 7 === 0 ? file : node(FILE_TYPE.regular | 0o600));
  }
  root.entries?.set("file", file);
  root.entries?.set("again", file);
  root.entries?.set("folder", folder);
  root.entries?.set("link", node(FILE_TYPE.symlink | 0o777, symlinkData("folder/entry-1")));
  root.entries?.set(
    "inline",
    node(FILE_TYPE.regular, { kind: "inline", bytes: Buffer.alloc(700, 1) }),
  );
  root.entries?.set("fifo", node(FILE_TYPE.fifo | 0o600));
  return root;
}

export function erofsSamples(): readonly Buffer[] {
  const empty = new ErofsInodeInput(defaultDirectory());
  return [writeErofs(empty, { devices: [] }), writeErofs(richTree(), { devices: DEVICES })];
}

/** Checksum over the superblock's block, whatever its size now is. */
function repairErofs(bytes: Buffer): Buffer {
  const blockBytes = 2 ** Math.min(bytes[1024 + 12] ?? 9, 16);
  const length = blockBytes > 1024 ? blockBytes - 1024 : blockBytes;
  if (bytes.length < 1024 + length || length < 128) return bytes;
  bytes.writeUInt32LE(0, 1028);
  bytes.writeUInt32LE(crc32c(0xffffffff, bytes.subarray(1024, 1024 + length)), 1028);
  return bytes;
}

const EROFS_READER: FuzzTarget = {
  name: "erofs-reader",
  seeds: erofsSamples,
  repair: repairErofs,
  run: (bytes) => {
    walk(ErofsReader.open(bytes), { strict: false });
  },
};

const EROFS_FILE_READER: FuzzTarget = {
  name: "erofs-file-reader",
  seeds: erofsSamples,
  repair: repairErofs,
  run: async (bytes) => {
    const wait = { signal: new AbortController().signal };
    const image = Buffer.from(bytes);
    const source = {
      size: image.length,
      read: ({ offset, length }: { offset: number; length: number }) =>
        image.subarray(offset, offset + length),
    };
    await walkFile(await ErofsFileReader.open(source, wait), wait);
  },
};

export const EROFS_TARGETS: readonly FuzzTarget[] = [EROFS_READER, EROFS_FILE_READER];

/** Mounts for tests, unpacked trees, and what a mounted tree looks like. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, readlinkSync, type BigIntStats } from "node:fs";
import { chmod, lchown, link, mkdir, mkdtemp, open, rm } from "node:fs/promises";
import { appendFile, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Context } from "mocha";
import {
  FILE_TYPE,
  FILE_TYPE_MASK,
  isDirectoryMode,
  piecesOf,
  writeErofs,
  type ErofsInodeInput,
} from "../../../src/erofs/index.ts";
import { makeNode, readXattrs, setMtime, setXattr, unmount } from "./libc.ts";
import {
  sizeOf,
  withIdentities,
  xattrsRecord,
  type Devices,
  type ManifestEntry,
} from "./manifest.ts";
import { directory } from "./trees.ts";

const run = promisify(execFile);
const CHILD = fileURLToPath(new URL("./mount-child.js", import.meta.url));

/** A folder with mounts in it; disposing unmounts and removes it. */
export class Scratch implements AsyncDisposable {
  readonly path: string;
  readonly #mounts: string[] = [];
  #count = 0;

  private constructor(path: string) {
    this.path = path;
  }

  static async create(): Promise<Scratch> {
    return new Scratch(await mkdtemp(join(tmpdir(), "faasnet-erofs-")));
  }

  /** A new name in the folder. */
  name(suffix: string): string {
    this.#count += 1;
    return join(this.path, `${this.#count}-${suffix}`);
  }

  async write(suffix: string, bytes: Uint8Array): Promise<string> {
    const path = this.name(suffix);
    await writeFile(path, bytes);
    return path;
  }

  /** mount(2) in a child; returns the mountpoint. */
  async mount(
    type: string,
    source: string,
    data: string,
    options: { readonly isWritable?: boolean } = {},
  ): Promise<string> {
    const target = this.name("mnt");
    await mkdir(target);
    await run(process.execPath, [
      CHILD,
      type,
      source,
      target,
      data,
      options.isWritable === true ? "rw" : "ro",
    ]);
    this.#mounts.push(target);
    return target;
  }

  /** The kernel's own mount of an image, file-backed. */
  async mountErofs(image: Uint8Array, devices: Devices): Promise<string> {
    const meta = await this.write("meta.erofs", image);
    const options: string[] = [];
    for (const device of devices) options.push(`device=${await this.write("data", device)}`);
    return this.mount("erofs", meta, options.join(","));
  }

  /** Kernel overlayfs over directories, bottom first, without an upper one. */
  async mountOverlay(lowers: readonly string[]): Promise<string> {
    return this.mount("overlay", "overlay", `lowerdir=${lowers.toReversed().join(":")}`);
  }

  /** The same below a new upper directory, as a container has it. */
  async mountContainer(
    lowers: readonly string[],
    options: { readonly isWritable?: boolean } = {},
  ): Promise<string> {
    const upper = this.name("upper");
    const work = this.name("work");
    await mkdir(upper);
    await mkdir(work);
    setMtime(upper, 1_000_000_000, 0);
    const lower = lowers.toReversed().join(":");
    const data = `lowerdir=${lower},upperdir=${upper},workdir=${work}`;
    return this.mount("overlay", "overlay", data, options);
  }

  async append(path: string, text: string): Promise<void> {
    await appendFile(path, text);
  }

  /** The tree as ordinary files below a new folder, as a layer unpacked by containerd. */
  async unpack(root: ErofsInodeInput, devices: Devices): Promise<string> {
    const path = this.name("unpacked");
    await unpackInode(root, path, devices, new Map());
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const target of this.#mounts.reverse()) unmount(target);
    await rm(this.path, { recursive: true, force: true });
  }
}

async function unpackInode(
  inode: ErofsInodeInput,
  path: string,
  devices: Devices,
  known: Map<ErofsInodeInput, string>,
): Promise<void> {
  const where = Buffer.from(path, "latin1");
  const first = known.get(inode);
  if (first !== undefined) {
    await link(Buffer.from(first, "latin1"), where);
    return;
  }
  known.set(inode, path);
  const { attributes: found } = inode;
  await createInode(inode, path, devices);
  for (const [name, child] of inode.entries ?? []) {
    await unpackInode(child, `${path}/${name}`, devices, known);
  }
  await lchown(where, found.uid, found.gid);
  if ((found.mode & FILE_TYPE_MASK) !== FILE_TYPE.symlink) await chmod(where, found.mode & 0o7777);
  for (const [name, value] of found.xattrs) setXattr(path, name, value);
  setMtime(path, found.mtimeSec, found.mtimeNsec);
}

async function createInode(inode: ErofsInodeInput, path: string, devices: Devices): Promise<void> {
  const { mode, rdevMajor, rdevMinor } = inode.attributes;
  const where = Buffer.from(path, "latin1");
  const type = mode & FILE_TYPE_MASK;
  if (type === FILE_TYPE.directory) await mkdir(where);
  else if (type === FILE_TYPE.symlink) {
    if (inode.data.kind === "inline") await symlink(Buffer.from(inode.data.bytes), where);
  } else if (type === FILE_TYPE.regular) {
    await using file = await open(where, "wx");
    await file.truncate(sizeOf(inode.data));
    let at = 0;
    for (const piece of piecesOf(inode.data, { start: 0, end: sizeOf(inode.data) })) {
      if (piece.kind === "bytes") await file.write(piece.bytes, 0, piece.bytes.length, at);
      if (piece.kind === "device") {
        const device = devices[piece.device - 1];
        if (device !== undefined) await file.write(device, piece.deviceOffset, piece.length, at);
      }
      at += piece.kind === "bytes" ? piece.bytes.length : piece.length;
    }
  } else makeNode(path, mode, rdevMajor, rdevMinor);
}

const SECOND_NS = 1_000_000_000n;

/** overlayfs lists whiteouts of a directory that is not merged, but has no such file. */
function statOf(path: Buffer): BigIntStats | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false });
}

/**
 * Everything that can be seen of a directory tree (shallow: no xattrs, no contents). Synchronous,
 * which is several times faster.
 */
export function describeMount(
  root: string,
  options: { readonly isShallow?: boolean } = {},
): ManifestEntry[] {
  const entries: (ManifestEntry & { ino: bigint })[] = [];
  const pending = [""];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    const where = Buffer.from(root + path, "latin1");
    const stat = statOf(where);
    if (stat === undefined) continue;
    const mode = Number(stat.mode);
    const nsec = ((stat.mtimeNs % SECOND_NS) + SECOND_NS) % SECOND_NS;
    const sec = (stat.mtimeNs - nsec) / SECOND_NS;
    const isDirectory = isDirectoryMode(mode);
    entries.push({
      ino: stat.ino,
      path,
      identity: "",
      mode: mode.toString(8),
      owner: `${stat.uid}:${stat.gid}`,
      mtime: `${sec}.${nsec.toString().padStart(9, "0")}`,
      rdev: deviceNumber(mode, stat.rdev),
      nlink: Number(stat.nlink),
      size: isDirectory ? 0 : Number(stat.size),
      xattrs: options.isShallow === true ? {} : xattrsRecord(readXattrs(root + path)),
      content: options.isShallow === true ? "" : readContent(where, mode),
    });
    if (!isDirectory) continue;
    for (const name of readdirSync(where, { encoding: "buffer" }))
      pending.push(`${path}/${name.toString("latin1")}`);
  }
  return withIdentities(entries, (entry) => entry.ino);
}

/** glibc's gnu_dev_major and gnu_dev_minor. */
function deviceNumber(mode: number, rdev: bigint): string {
  const type = mode & FILE_TYPE_MASK;
  if (type !== FILE_TYPE.characterDevice && type !== FILE_TYPE.blockDevice) return "0:0";
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}

function readContent(path: Buffer, mode: number): string {
  const type = mode & FILE_TYPE_MASK;
  if (type === FILE_TYPE.symlink) {
    return readlinkSync(path, { encoding: "buffer" }).toString("latin1");
  }
  if (type !== FILE_TYPE.regular) return "";
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** Call first in a `before` hook. */
export async function requireMount(context: Context): Promise<void> {
  const missing = await missingForMount();
  if (missing === undefined) return;
  if (process.env["CI"] === "true") throw new Error(`missing: ${missing}`);
  // mocha's reporter shows a skipped test without its reason.
  process.stderr.write(`    skipped, missing: ${missing}\n`);
  context.skip();
}

/** What keeps the kernel's mount from being tested here, or undefined. */
async function missingForMount(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return "root";
  await using scratch = await Scratch.create();
  const image = writeErofs(directory(), { devices: [] });
  try {
    await scratch.mountErofs(image, []);
    return undefined;
  } catch (error) {
    return `file-backed EROFS (Linux 6.12, temporary files not on tmpfs): ${String(error)}`;
  }
}

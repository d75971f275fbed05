/**
 * The operations of one mount in the form that fuse-native's C glue calls. Every request is
 * answered exactly once: fuse-native's own time-outs are off, and without them a second answer
 * would post a semaphore that belongs to a later request.
 */
import type Fuse from "fuse-native";
import type { NativeSignal } from "fuse-native";
import { EBADF, EIO, ENFILE, ENODATA, ERANGE, Errno } from "./errno.ts";
import type { FuseAttributes, FuseDirEntry, FuseFile, FuseFileSystem } from "./file-system.ts";
import type { FuseStatfs, Reply } from "./file-system.ts";
import { bytesOfText, PathResolver, textOfBytes } from "./path-resolver.ts";

/** Open files of one mount; the kernel opens a file once for each open(2). */
export const OPEN_FILES_MAX = 1 << 20;
/** `struct stat` in fuse-native's order: see its `populate_stat`. */
const STAT_WORDS = 18;
/** fuse-native's `populate_statvfs`. */
const STATFS_WORDS = 11;
const STAT_SLAB_COUNT = 512;
const NAME_BYTES_MAX = 255;
const TWO_32 = 2 ** 32;

/** Small typed arrays of their own cost an allocation outside the heap each: a cold `find` of
 * 60,000 files left 80 MB of them. These are cut from larger pieces, each used once. */
class StatSlab {
  #bytes = new ArrayBuffer(0);
  #used = 0;

  words(): Uint32Array {
    const length = STAT_WORDS * Uint32Array.BYTES_PER_ELEMENT;
    if (this.#used + length > this.#bytes.byteLength) {
      this.#bytes = new ArrayBuffer(STAT_SLAB_COUNT * length);
      this.#used = 0;
    }
    const words = new Uint32Array(this.#bytes, this.#used, STAT_WORDS);
    this.#used += length;
    return words;
  }
}

const slab = new StatSlab();

function put64(words: Uint32Array, index: number, value: number): void {
  words[index] = value % TWO_32;
  words[index + 1] = Math.floor(value / TWO_32);
}

/** Source: the kernel's new_encode_dev, 12 and 20 bits: what libfuse hands through. */
export function encodeDevice(major: number, minor: number): number {
  return (((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0) % TWO_32;
}

/** Milliseconds, not negative: finer or older times do not pass through fuse-native. */
export function encodeTimeMs(seconds: number, nanoseconds: number): number {
  return seconds < 0 ? 0 : seconds * 1000 + Math.floor(nanoseconds / 1_000_000);
}

export function encodeStat(attributes: FuseAttributes): Uint32Array {
  const words = slab.words();
  const timeMs = encodeTimeMs(attributes.mtimeSec, attributes.mtimeNsec);
  words[0] = attributes.mode;
  words[1] = attributes.uid;
  words[2] = attributes.gid;
  put64(words, 3, attributes.size);
  words[6] = attributes.nlink;
  words[7] = attributes.inode;
  words[8] = encodeDevice(attributes.rdevMajor, attributes.rdevMinor);
  words[9] = 4096;
  put64(words, 10, Math.ceil(attributes.size / 512));
  for (const index of [12, 14, 16]) put64(words, index, timeMs);
  return words;
}

function encodeEntryStat(entry: FuseDirEntry): Uint32Array {
  const words = slab.words();
  words[0] = entry.mode;
  words[7] = entry.inode;
  return words;
}

function encodeStatfs(statfs: FuseStatfs): Uint32Array {
  const words = new Uint32Array(STATFS_WORDS);
  words[0] = statfs.blockBytes;
  words[1] = statfs.blockBytes;
  words[2] = Math.min(statfs.blocks, TWO_32 - 1);
  words[5] = Math.min(statfs.files, TWO_32 - 1);
  words[10] = NAME_BYTES_MAX;
  return words;
}

/** Several names may read the same once their odd bytes are U+FFFD: listed once. */
function listing(entries: readonly FuseDirEntry[]): [string[], Uint32Array[]] {
  const names = new Set<string>();
  const stats: Uint32Array[] = [];
  for (const entry of entries) {
    const text = textOfBytes(entry.name);
    if (names.has(text)) continue;
    names.add(text);
    stats.push(encodeEntryStat(entry));
  }
  return [[...names], stats];
}

export type ErrorReport = (operation: string, error: unknown) => void;

/** Answers with `success`'s values, or -errno with `failure`'s, whatever `work` does. */
function answer<T>(
  operation: string,
  signal: NativeSignal,
  report: ErrorReport,
  work: () => Reply<T>,
  success: (value: T) => readonly [number, ...unknown[]] | Errno,
  failure: readonly unknown[] = [],
): void {
  let answered = false;
  const send = (result: number, values: readonly unknown[]): void => {
    if (answered) return;
    answered = true;
    signal(result, ...values);
  };
  const fail = (error: unknown): void => {
    report(operation, error);
    send(-EIO.value, failure);
  };
  const settle = (outcome: T | Errno): void => {
    try {
      const reply = outcome instanceof Errno ? outcome : success(outcome);
      if (reply instanceof Errno) send(-reply.value, failure);
      else send(reply[0], reply.slice(1));
    } catch (error) {
      fail(error);
    }
  };
  try {
    const outcome = work();
    if (outcome instanceof Promise) outcome.then(settle, fail);
    else settle(outcome);
  } catch (error) {
    fail(error);
  }
}

function chain<T, U>(reply: Reply<T>, next: (value: T) => Reply<U>): Reply<U> {
  if (reply instanceof Promise) {
    return reply.then((value) => (value instanceof Errno ? value : next(value)));
  }
  return reply instanceof Errno ? reply : next(reply);
}

/** File handles are 31-bit and 0 means "none" to fuse-native: numbers are used again. */
class HandleTable {
  readonly #files = new Map<number, FuseFile>();
  readonly #free: number[] = [];
  #next = 1;

  get size(): number {
    return this.#files.size;
  }

  add(file: FuseFile): number | Errno {
    if (this.#files.size >= OPEN_FILES_MAX) return ENFILE;
    const handle = this.#free.pop() ?? this.#next++;
    this.#files.set(handle, file);
    return handle;
  }

  get(handle: number): FuseFile | undefined {
    return this.#files.get(handle);
  }

  remove(handle: number): void {
    const file = this.#files.get(handle);
    if (file === undefined) return;
    this.#files.delete(handle);
    this.#free.push(handle);
    file.close?.();
  }
}

export class FuseOperations {
  readonly #fileSystem: FuseFileSystem;
  readonly #paths: PathResolver;
  readonly #handles = new HandleTable();
  readonly #report: ErrorReport;
  readonly #onFirst: () => void;
  #isUsed = false;

  /** `onFirst` is called at the first request: the kernel has then taken over the INIT answer. */
  constructor(fileSystem: FuseFileSystem, report: ErrorReport, onFirst: () => void) {
    this.#fileSystem = fileSystem;
    this.#paths = new PathResolver(fileSystem);
    this.#report = report;
    this.#onFirst = onFirst;
  }

  get openFiles(): number {
    return this.#handles.size;
  }

  /** The names that fuse-native must find to enable an operation; the rest the kernel knows. */
  implemented(): Record<string, true> {
    const names = ["getattr", "readdir", "open", "read", "release"];
    for (const name of ["readlink", "getxattr", "listxattr", "statfs"] as const) {
      if (this.#fileSystem[name] !== undefined) names.push(name);
    }
    return Object.fromEntries(names.map((name) => [name, true]));
  }

  install(native: Fuse): void {
    native._op_getattr = (signal, path) => {
      if (!this.#isUsed) {
        this.#isUsed = true;
        this.#onFirst();
      }
      const work = (): Reply<FuseAttributes> =>
        chain(this.#paths.resolve(path), (inode) => this.#fileSystem.getattr(inode));
      answer("getattr", signal, this.#report, work, (found) => [0, encodeStat(found)]);
    };
    native._op_readdir = (signal, path) => {
      const work = (): Reply<readonly FuseDirEntry[]> =>
        chain(this.#paths.resolve(path), (inode) => this.#fileSystem.readdir(inode));
      answer("readdir", signal, this.#report, work, (entries) => [0, ...listing(entries)]);
    };
    native._op_open = (signal, path) => {
      const work = (): Reply<number> =>
        chain(
          chain(this.#paths.resolve(path), (inode) => this.#fileSystem.open(inode)),
          (file) => this.#handles.add(file),
        );
      answer("open", signal, this.#report, work, (handle) => [0, handle]);
    };
    native._op_release = (signal, _path, handle) => {
      const work = (): number => {
        this.#handles.remove(handle);
        return 0;
      };
      answer("release", signal, this.#report, work, () => [0]);
    };
    this.#installRead(native);
    this.#installOptional(native);
  }

  #installRead(native: Fuse): void {
    native._op_read = (signal, _path, handle, buffer, _length, low, high) => {
      const work = (): Reply<number> =>
        this.#handles.get(handle)?.read(buffer, high * TWO_32 + low) ?? EBADF;
      // The C glue detaches the buffer in every case.
      answer("read", signal, this.#report, work, (bytes) => [bytes, bytes, buffer.buffer], [
        0,
        buffer.buffer,
      ]);
    };
  }

  #installOptional(native: Fuse): void {
    const fs = this.#fileSystem;
    native._op_readlink = (signal, path) => {
      const work = (): Reply<Uint8Array> =>
        chain(this.#paths.resolve(path), (inode) => fs.readlink?.(inode) ?? EIO);
      const success = (target: Uint8Array): readonly [number, string] => [
        0,
        Buffer.from(target).toString("utf8"),
      ];
      answer("readlink", signal, this.#report, work, success);
    };
    native._op_getxattr = (signal, path, name, space) => {
      const work = (): Reply<Uint8Array> =>
        chain(
          this.#paths.resolve(path),
          (inode) => fs.getxattr?.(inode, bytesOfText(name)) ?? ENODATA,
        );
      const success = (value: Uint8Array): readonly [number, unknown] | Errno =>
        fillXattr(space, value);
      answer("getxattr", signal, this.#report, work, success, [space.buffer]);
    };
    native._op_listxattr = (signal, path, space) => {
      const work = (): Reply<readonly string[]> =>
        chain(this.#paths.resolve(path), (inode) => fs.listxattr?.(inode) ?? []);
      const success = (names: readonly string[]): readonly [number, unknown] | Errno =>
        fillXattr(space, Buffer.from(names.map((name) => `${name}\0`).join(""), "latin1"));
      answer("listxattr", signal, this.#report, work, success, [space.buffer]);
    };
    native._op_statfs = (signal) => {
      const work = (): Reply<FuseStatfs> => fs.statfs?.() ?? EIO;
      answer("statfs", signal, this.#report, work, (found) => [0, encodeStatfs(found)]);
    };
  }
}

/** Size 0 asks for the length; too small a buffer is ERANGE. Source: getxattr(2), listxattr(2). */
function fillXattr(space: Buffer, value: Uint8Array): readonly [number, unknown] | Errno {
  if (space.length > 0) {
    if (value.length > space.length) return ERANGE;
    space.set(value);
  }
  return [value.length, space.buffer];
}

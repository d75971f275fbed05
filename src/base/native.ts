/**
 * System calls that Node lacks, by FFI. Every call runs on a libuv pool thread: a mount(2) whose
 * device is a FUSE file, or an umount2(2), may wait for another process and must never hold the
 * event loop. Loaded at the first call, so that processes which need none of it stay small.
 */
import { close, read } from "node:fs";
import { open, writeFile } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { getSystemErrorName } from "node:util";
import { DaemonError, systemErrorName } from "./errors.ts";
import type { ErrorCode } from "./errors.ts";

interface CallResult {
  readonly result: number;
  /** Positive; only meaningful when the result is negative. */
  readonly errno: number;
}
type NativeCall = (...args: readonly unknown[]) => Promise<CallResult>;

interface Library {
  readonly mount: NativeCall;
  readonly umount2: NativeCall;
  readonly fallocate: NativeCall;
  readonly ioctl: NativeCall;
  readonly fsopen: NativeCall;
  readonly fsconfig: NativeCall;
  readonly fsmount: NativeCall;
  readonly moveMount: NativeCall;
}

/** Source: asm-generic/unistd.h; these numbers are the same on every architecture since 5.2. */
const SYS_MOVE_MOUNT = 429;
const SYS_FSOPEN = 430;
const SYS_FSCONFIG = 431;
const SYS_FSMOUNT = 432;

let library: Promise<Library> | undefined;

async function loadLibrary(): Promise<Library> {
  const koffi = (await import("koffi")).default;
  // The program's own symbols: glibc and musl alike, whatever the file of libc is called.
  const libc = koffi.load(null);
  const bind = (signature: string, first?: number): NativeCall => {
    const call = libc.func(signature);
    return (...args) =>
      new Promise((resolve, reject) => {
        const all = first === undefined ? args : [first, ...args];
        call.async(...all, (error: unknown, result: number) => {
          // koffi restores this call's errno around its callback; `all` kept the buffers alive.
          const errno = koffi.errno();
          if (error !== null || all.length === 0) {
            reject(new DaemonError("internal", `${signature} failed`, { cause: error }));
          } else resolve({ result, errno });
        });
      });
  };
  return {
    mount: bind("int mount(const char*, const char*, const char*, unsigned long, const char*)"),
    umount2: bind("int umount2(const char*, int)"),
    fallocate: bind("int fallocate(int, int, int64_t, int64_t)"),
    ioctl: bind("int ioctl(int, unsigned long, void*)"),
    fsopen: bind("long syscall(long, const char*, unsigned int)", SYS_FSOPEN),
    fsconfig: bind(
      "long syscall(long, int, unsigned int, const char*, const char*, int)",
      SYS_FSCONFIG,
    ),
    fsmount: bind("long syscall(long, int, unsigned int, unsigned int)", SYS_FSMOUNT),
    moveMount: bind(
      "long syscall(long, int, const char*, int, const char*, unsigned int)",
      SYS_MOVE_MOUNT,
    ),
  };
}

async function native(): Promise<Library> {
  library ??= loadLibrary();
  return library;
}

const CODES: Readonly<Record<string, ErrorCode>> = {
  EACCES: "permission-denied",
  EBUSY: "failed-precondition",
  EINVAL: "invalid-argument",
  EMFILE: "resource-exhausted",
  ENFILE: "resource-exhausted",
  ENODEV: "unimplemented",
  ENOENT: "not-found",
  ENOMEM: "resource-exhausted",
  ENOSPC: "resource-exhausted",
  ENOSYS: "unimplemented",
  ENOTBLK: "unimplemented",
  EOPNOTSUPP: "unimplemented",
  EPERM: "permission-denied",
};

/** Node knows the numbers that libuv uses; the block layer has one more. */
function errnoName(errno: number): string {
  return errno === 15 ? "ENOTBLK" : getSystemErrorName(-errno);
}

/** A failed system call: its name, the object and the errno are in the message and details. */
export function syscallError(
  syscall: string,
  path: string,
  errno: number,
  note?: string,
): DaemonError {
  const name = errnoName(errno);
  const suffix = note === undefined || note === "" ? "" : ` (${note})`;
  return new DaemonError(CODES[name] ?? "internal", `${syscall} ${path}: ${name}${suffix}`, {
    details: { syscall, path, errno: name },
  });
}

/** The errno name (`EBUSY`) of an error made here, or undefined. */
export function nativeErrno(error: unknown): string | undefined {
  if (!(error instanceof DaemonError)) return undefined;
  const name = error.details["errno"];
  return typeof name === "string" ? name : undefined;
}

/** Source: linux/mount.h */
export const MS_RDONLY = 1;
const MNT_DETACH = 2;

/** The kernel copies at most one page of mount(2) options, with their closing zero. */
export const MOUNT_DATA_BYTES_MAX = 4095;

export interface MountCall {
  readonly source: string;
  readonly target: string;
  readonly fsType: string;
  /** MS_* bits. */
  readonly flags: number;
  readonly data: string;
}

/** mount(2): no loop device, no /etc/mtab, no helper program. */
export async function mount(call: MountCall): Promise<void> {
  if (Buffer.byteLength(call.data) > MOUNT_DATA_BYTES_MAX) {
    throw new DaemonError(
      "resource-exhausted",
      `mount ${call.target}: options are longer than ${MOUNT_DATA_BYTES_MAX} bytes`,
    );
  }
  const { mount: mountCall } = await native();
  const { result, errno } = await mountCall(
    call.source,
    call.target,
    call.fsType,
    call.flags,
    call.data,
  );
  if (result < 0) throw syscallError("mount", call.target, errno, `${call.fsType} ${call.source}`);
}

/**
 * umount2(2). `detach` is lazy: the mount leaves the tree at once and lives on for those who hold
 * it. Without it the call fails with EBUSY while anything on the mount is open or mounted.
 */
export async function unmount(
  target: string,
  options: { readonly detach: boolean },
): Promise<void> {
  const { umount2 } = await native();
  const { result, errno } = await umount2(target, options.detach ? MNT_DETACH : 0);
  if (result < 0) throw syscallError("umount2", target, errno);
}

/** Source: linux/mount.h, fsconfig(2), fsmount(2) */
const FSOPEN_CLOEXEC = 1;
const FSCONFIG_SET_FLAG = 0;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_CREATE = 6;
const FSMOUNT_CLOEXEC = 1;
const MOUNT_ATTR_RDONLY = 1;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const AT_FDCWD = -100;
/** A value of fsconfig(2) is copied into a buffer of this size with its closing zero. */
const FSCONFIG_VALUE_BYTES_MAX = 255;

export interface FsMountCall {
  readonly fsType: string;
  readonly source: string;
  readonly target: string;
  /** In order; a key may come several times (`device`). */
  readonly parameters: readonly (readonly [key: string, value: string])[];
}

/**
 * A read-only mount by fsopen(2), fsconfig(2), fsmount(2) and move_mount(2): options of any total
 * length (an image of 128 layers names 128 devices), and the kernel says what it did not like.
 */
export async function mountReadOnly(call: FsMountCall): Promise<void> {
  const calls = await native();
  const opened = await calls.fsopen(call.fsType, FSOPEN_CLOEXEC);
  if (opened.result < 0) throw syscallError("fsopen", call.fsType, opened.errno);
  const context = opened.result;
  try {
    const configure = async (command: number, key?: string, value?: string): Promise<void> => {
      if (value !== undefined && Buffer.byteLength(value) > FSCONFIG_VALUE_BYTES_MAX) {
        throw new DaemonError(
          "invalid-argument",
          `mount ${call.target}: ${key ?? ""} is longer than ${FSCONFIG_VALUE_BYTES_MAX} bytes`,
        );
      }
      const done = await calls.fsconfig(context, command, key ?? null, value ?? null, 0);
      if (done.result < 0) {
        const what = key === undefined ? call.source : `${key}=${value ?? ""}`;
        const note = [`${call.fsType} ${what}`, ...(await contextMessages(context))].join("; ");
        throw syscallError("fsconfig", call.target, done.errno, note);
      }
    };
    await configure(FSCONFIG_SET_STRING, "source", call.source);
    await configure(FSCONFIG_SET_FLAG, "ro");
    for (const [key, value] of call.parameters) await configure(FSCONFIG_SET_STRING, key, value);
    await configure(FSCONFIG_CMD_CREATE);
    const made = await calls.fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY);
    if (made.result < 0) throw syscallError("fsmount", call.target, made.errno);
    try {
      const moved = await calls.moveMount(
        made.result,
        "",
        AT_FDCWD,
        call.target,
        MOVE_MOUNT_F_EMPTY_PATH,
      );
      if (moved.result < 0) throw syscallError("move_mount", call.target, moved.errno);
    } finally {
      await closeFd(made.result);
    }
  } finally {
    await closeFd(context);
  }
}

/** Messages the kernel kept for the context: one a read, then ENODATA. */
async function contextMessages(context: number): Promise<string[]> {
  const messages: string[] = [];
  const buffer = Buffer.alloc(1024);
  while (messages.length < 16) {
    const length = await new Promise<number>((resolve) => {
      read(context, buffer, 0, buffer.length, null, (error, bytes) => {
        resolve(error === null ? bytes : 0);
      });
    });
    if (length === 0) return messages;
    messages.push(buffer.toString("utf8", 0, length).trim());
  }
  return messages;
}

async function closeFd(fd: number): Promise<void> {
  await new Promise<void>((resolve) => {
    close(fd, () => {
      resolve();
    });
  });
}

/** Source: linux/falloc.h */
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

/** Gives the range's disk space back; it reads as zeros from then on. */
export async function punchHole(fd: number, offset: number, length: number): Promise<void> {
  const { fallocate } = await native();
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  const { result, errno } = await fallocate(fd, mode, offset, length);
  if (result < 0) throw syscallError("fallocate", `fd ${fd}`, errno, `${offset}+${length}`);
}

/** Source: linux/loop.h: ioctl numbers, flags, and the layouts of loop_config and loop_info64. */
const LOOP_CTL_GET_FREE = 0x4c82;
const LOOP_CONFIGURE = 0x4c0a;
const LOOP_GET_STATUS64 = 0x4c05;
const LO_FLAGS_READ_ONLY = 1;
const LO_FLAGS_AUTOCLEAR = 4;
const LO_FLAGS_DIRECT_IO = 16;
const LOOP_FLAGS = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
const LOOP_CONFIG_BYTES = 304;
const LOOP_CONFIG_BLOCK_SIZE_AT = 4;
const LOOP_CONFIG_INFO_AT = 8;
const LOOP_INFO_BYTES = 232;
const LOOP_INFO_FLAGS_AT = 52;
/** Another process may take the free device first. */
const LOOP_TRIES_MAX = 64;

/** An attached loop device. The kernel detaches it when nobody has it open any more. */
export interface LoopDevice extends AsyncDisposable {
  readonly path: string;
}

async function openFile(path: string, flags: string): Promise<FileHandle> {
  try {
    return await open(path, flags);
  } catch (error) {
    const code = CODES[systemErrorName(error) ?? ""] ?? "internal";
    throw new DaemonError(code, `cannot attach a loop device`, { cause: error });
  }
}

export interface LoopOptions {
  /**
   * Reads pass the file's page cache by, or it is an error. Not for speed: without it a read of the
   * file that ends short (an error after a good first part) comes back as success, with zeros for
   * the rest. Source: drivers/block/loop.c, lo_read_simple; seen on Linux 6.1.
   */
  readonly isDirect: boolean;
}

/** Attaches a file read-only, 512-byte blocks, autoclear: dispose once the mount holds it. */
export async function attachLoop(file: string, options: LoopOptions): Promise<LoopDevice> {
  let control: FileHandle | undefined;
  let backing: FileHandle | undefined;
  try {
    control = await openFile("/dev/loop-control", "r+");
    backing = await openFile(file, "r");
    const config = loopConfig(backing.fd, options);
    for (let attempt = 0; attempt < LOOP_TRIES_MAX; attempt += 1) {
      const device = await configureFreeLoop(control.fd, config, file);
      if (device === undefined) continue;
      try {
        if (options.isDirect) await checkIsDirect(device.handle.fd, file);
      } catch (error) {
        await device.handle.close();
        throw error;
      }
      return { path: device.path, [Symbol.asyncDispose]: () => device.handle.close() };
    }
    throw new DaemonError("resource-exhausted", `no free loop device for ${file}`);
  } finally {
    await backing?.close();
    await control?.close();
  }
}

function loopConfig(fd: number, { isDirect }: LoopOptions): Buffer {
  const config = Buffer.alloc(LOOP_CONFIG_BYTES);
  config.writeUInt32LE(fd, 0);
  config.writeUInt32LE(512, LOOP_CONFIG_BLOCK_SIZE_AT);
  const flags = isDirect ? LOOP_FLAGS | LO_FLAGS_DIRECT_IO : LOOP_FLAGS;
  config.writeUInt32LE(flags, LOOP_CONFIG_INFO_AT + LOOP_INFO_FLAGS_AT);
  return config;
}

/** Undefined when another process was quicker. */
async function configureFreeLoop(
  controlFd: number,
  config: Buffer,
  file: string,
): Promise<{ readonly path: string; readonly handle: FileHandle } | undefined> {
  const { ioctl } = await native();
  const free = await ioctl(controlFd, LOOP_CTL_GET_FREE, null);
  if (free.result < 0) throw syscallError("ioctl", "/dev/loop-control", free.errno);
  const path = `/dev/loop${free.result}`;
  const handle = await openFile(path, "r");
  const done = await ioctl(handle.fd, LOOP_CONFIGURE, config);
  if (done.result >= 0) return { path, handle };
  await handle.close();
  if (errnoName(done.errno) === "EBUSY") return undefined;
  throw syscallError("ioctl", path, done.errno, `LOOP_CONFIGURE ${file}`);
}

/** The kernel drops the flag without a word where the file cannot do it. */
async function checkIsDirect(fd: number, file: string): Promise<void> {
  const { ioctl } = await native();
  const info = Buffer.alloc(LOOP_INFO_BYTES);
  const { result, errno } = await ioctl(fd, LOOP_GET_STATUS64, info);
  if (result < 0) throw syscallError("ioctl", file, errno, "LOOP_GET_STATUS64");
  if ((info.readUInt32LE(LOOP_INFO_FLAGS_AT) & LO_FLAGS_DIRECT_IO) !== 0) return;
  throw new DaemonError("failed-precondition", `no direct I/O from a loop device to ${file}`);
}

/** Source: proc_pid_oom_score_adj(5); -1000 would exempt the process altogether. */
const OOM_SCORE_ADJ = -900;

/** Asks the kernel to kill others first; false where that is not allowed. */
export async function protectFromOomKiller(): Promise<boolean> {
  try {
    await writeFile("/proc/self/oom_score_adj", String(OOM_SCORE_ADJ));
    return true;
  } catch {
    return false; // needs CAP_SYS_RESOURCE
  }
}

/**
 * One FUSE mount served by this process's main thread (fuse-native works on no other). The process
 * must never touch its own mount: a synchronous call hangs it for ever, an asynchronous one holds a
 * pool thread that the mount's own answers may need.
 */
import { access, mkdir, writeFile } from "node:fs/promises";
import type Fuse from "fuse-native";
import { raceAbort } from "../base/abort.ts";
import { DaemonError, withContext } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { mountAt, readMountInfo } from "../base/mountinfo.ts";
import { nativeErrno, unmount } from "../base/native.ts";
import type { FuseFileSystem } from "./file-system.ts";
import { FUSE_FS_TYPE, fuseOptionString } from "./mount-options.ts";
import type { FuseMountOptions } from "./mount-options.ts";
import { FuseOperations } from "./operations.ts";

/** Kernel read-ahead of a mount when nothing else is asked for: one block. */
export const READ_AHEAD_KIB = 1024;
/** Failed requests of a mount that are all logged; after that the 16th, 32nd, 64th, … is. */
const FAILURES_LOGGED = 8;
/** Dead mounts stacked on one mountpoint that are cleared at once. */
const STACKED_MOUNTS_MAX = 64;

export interface FuseSessionOptions extends FuseMountOptions {
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly readAheadKiB?: number;
}

let loaded: Promise<typeof Fuse> | undefined;

/** Throws `failed-precondition` saying what is missing. */
async function loadFuse(): Promise<typeof Fuse> {
  try {
    await access("/dev/fuse");
  } catch (error) {
    throw new DaemonError(
      "failed-precondition",
      "/dev/fuse is missing: load the fuse kernel module, or give this container the device",
      { cause: error },
    );
  }
  loaded ??= import("fuse-native").then(({ default: native }) => {
    // Its unmount runs fusermount through a shell; a session unmounts with umount2(2) instead.
    native.unmount = (_mountpoint, callback) => {
      callback(null);
    };
    return native;
  });
  try {
    return await loaded;
  } catch (error) {
    loaded = undefined;
    throw new DaemonError(
      "failed-precondition",
      "libfuse 2 cannot be loaded: install libfuse2 (libfuse2t64 from Debian 13 on)",
      { cause: error },
    );
  }
}

/** Throws `failed-precondition` with what to do where FUSE cannot work. */
export async function requireFuse(): Promise<void> {
  await loadFuse();
}

/** Lazily unmounts what an earlier process of ours left on the mountpoint; nothing else. */
export async function detachStale(mountpoint: string): Promise<number> {
  for (let count = 0; count < STACKED_MOUNTS_MAX; count += 1) {
    const mount = mountAt(await readMountInfo(), mountpoint);
    if (mount === undefined) return count;
    if (mount.fsType !== FUSE_FS_TYPE) {
      throw new DaemonError(
        "failed-precondition",
        `${mountpoint} is a mountpoint of ${mount.fsType} (${mount.source})`,
      );
    }
    await unmount(mountpoint, { detach: true });
  }
  throw new DaemonError("failed-precondition", `${mountpoint}: too many stacked mounts`);
}

export class FuseSession implements AsyncDisposable {
  readonly mountpoint: string;
  readonly #native: Fuse;
  readonly #log: Logger;
  #isMounted = true;

  private constructor(mountpoint: string, native: Fuse, log: Logger) {
    this.mountpoint = mountpoint;
    this.#native = native;
    this.#log = log;
  }

  /** Makes the folder if needed. After a failure nothing is mounted. */
  static async mount(
    mountpoint: string,
    fileSystem: FuseFileSystem,
    options: FuseSessionOptions,
  ): Promise<FuseSession> {
    const optionString = fuseOptionString(options);
    const FuseClass = await loadFuse();
    await detachStale(mountpoint);
    await mkdir(mountpoint, { recursive: true, mode: 0o700 });
    const log = options.log.child({ mountpoint });
    const readAheadKiB = options.readAheadKiB ?? READ_AHEAD_KIB;
    let failures = 0;
    const operations = new FuseOperations(
      fileSystem,
      (operation, error) => {
        failures += 1;
        if (failures <= FAILURES_LOGGED || Number.isInteger(Math.log2(failures))) {
          log.warn("fuse-operation-failed", { operation, failures, err: error });
        }
      },
      () => {
        // The INIT answer lowers the value to 128 KiB, and comes after our first write.
        void setReadAhead(mountpoint, readAheadKiB, log);
      },
    );
    const native = new FuseClass(mountpoint, operations.implemented(), { timeout: false });
    native._fuseOptions = () => optionString;
    operations.install(native);
    const opened = new Promise<void>((resolve, reject) => {
      native.open((error) => {
        if (error === null || error === undefined) resolve();
        else reject(error instanceof Error ? error : new Error("fuse-native failed"));
      });
    });
    try {
      await raceAbort(opened, options.signal);
    } catch (error) {
      // An option unknown to libfuse fails after mount(2).
      await detachStale(mountpoint).catch(() => undefined);
      throw withContext(error, `cannot mount FUSE on ${mountpoint}`);
    }
    const session = new FuseSession(mountpoint, native, log);
    await setReadAhead(mountpoint, readAheadKiB, log);
    return session;
  }

  /** libfuse threads that ever served this mount. */
  get threads(): number {
    return this.#native._threads.size;
  }

  /**
   * Without `detach`, fails with `failed-precondition` (EBUSY) while anybody uses the mount.
   * With it, open files go on being served as long as the process lives.
   */
  async unmount(options: { readonly detach: boolean }): Promise<void> {
    if (!this.#isMounted) return;
    try {
      await unmount(this.mountpoint, options);
    } catch (error) {
      // EINVAL, ENOENT: somebody else has unmounted it already.
      const errno = nativeErrno(error);
      if (errno !== "EINVAL" && errno !== "ENOENT") throw error;
    }
    this.#isMounted = false;
    await new Promise<void>((resolve) => {
      this.#native.close((error) => {
        if (error !== null && error !== undefined) this.#log.warn("fuse-close", { err: error });
        resolve();
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.unmount({ detach: true });
  }
}

/** Source: Documentation/ABI/testing/sysfs-class-bdi. The mount itself is not touched. */
async function setReadAhead(mountpoint: string, kib: number, log: Logger): Promise<void> {
  try {
    const mount = mountAt(await readMountInfo(), mountpoint);
    if (mount === undefined) return;
    await writeFile(`/sys/class/bdi/${mount.device}/read_ahead_kb`, String(kib));
  } catch (error) {
    log.debug("read-ahead-not-set", { err: error });
  }
}

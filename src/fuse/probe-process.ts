/**
 * The server of the start-up self-test: a process of its own that may be thrown away. It serves one
 * file with a known pattern and fails or stalls where its parent tells it to. With `--read` it is
 * the reader that gets killed. Talks to its parent by IPC and leaves with it.
 */
import { openSync, readSync } from "node:fs";
import { parseArgs } from "node:util";
import { errorMessage } from "../base/errors.ts";
import { silentLogger } from "../base/log.ts";
import { EIO, EISDIR, ENOENT } from "./errno.ts";
import type {
  FuseAttributes,
  FuseDirEntry,
  FuseFile,
  FuseFileSystem,
  Reply,
} from "./file-system.ts";
import { FuseSession } from "./session.ts";

/** What the parent sends. A `clear` answers the stalled reads with data. */
type ProbeOrder =
  | { readonly kind: "fail" | "stall"; readonly start: number; readonly end: number }
  | { readonly kind: "clear" };

const BLOCK_BYTES = 512;
const READ_PIECE_BYTES = 64 * 1024;

/** Block n holds n + 1 as 32-bit numbers: no block is zeros. */
export function fillPattern(buffer: Uint8Array, offset: number): void {
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  for (let at = 0; at + 4 <= buffer.length; at += 4) {
    view.setUint32(at, Math.floor((offset + at) / BLOCK_BYTES) + 1, true);
  }
}

class ProbeFileSystem implements FuseFileSystem {
  readonly rootInode = 1;
  readonly #size: number;
  #order: ProbeOrder = { kind: "clear" };
  #stalled: (() => void)[] = [];

  constructor(size: number) {
    this.#size = size;
  }

  obey(order: ProbeOrder): void {
    this.#order = order;
    if (order.kind !== "clear") return;
    for (const resume of this.#stalled) resume();
    this.#stalled = [];
  }

  lookup(_parent: number, name: string): Reply<number> {
    return name === "data" ? 2 : ENOENT;
  }

  getattr(inode: number): Reply<FuseAttributes> {
    const times = { mtimeSec: 0, mtimeNsec: 0 };
    const owner = { nlink: 1, uid: 0, gid: 0, rdevMajor: 0, rdevMinor: 0 };
    const mode = inode === 1 ? 0o040700 : 0o100400;
    return { inode, mode, size: inode === 1 ? 0 : this.#size, ...owner, ...times };
  }

  readdir(): Reply<readonly FuseDirEntry[]> {
    return [{ name: "data", inode: 2, mode: 0o100000 }];
  }

  open(inode: number): Reply<FuseFile> {
    if (inode !== 2) return EISDIR;
    return { read: (buffer, offset) => this.#read(buffer, offset) };
  }

  #read(buffer: Buffer, offset: number): Reply<number> {
    const length = Math.max(Math.min(buffer.length, this.#size - offset), 0);
    const order = this.#order;
    const isHit = order.kind !== "clear" && offset < order.end && offset + length > order.start;
    if (isHit && order.kind === "fail") return EIO;
    const answer = (): number => {
      fillPattern(buffer.subarray(0, length), offset);
      return length;
    };
    if (!isHit) return answer();
    process.send?.({ stalled: true });
    return new Promise((resolve) => {
      this.#stalled.push(() => {
        resolve(answer());
      });
    });
  }
}

function readAll(path: string, start: number, end: number): void {
  const fd = openSync(path, "r");
  const buffer = Buffer.alloc(READ_PIECE_BYTES);
  for (let at = start; at < end; at += buffer.length) readSync(fd, buffer, 0, buffer.length, at);
}

async function serve(mountpoint: string, size: number): Promise<void> {
  const fileSystem = new ProbeFileSystem(size);
  const session = await FuseSession.mount(mountpoint, fileSystem, {
    allowSpecial: false,
    log: silentLogger,
    signal: new AbortController().signal,
    readAheadKiB: 128,
  });
  process.on("message", (order: ProbeOrder) => {
    fileSystem.obey(order);
    process.send?.({ obeyed: true });
  });
  process.on("disconnect", () => {
    void session.unmount({ detach: true }).finally(() => process.exit(0));
  });
  process.send?.({ ready: true });
}

const { values } = parseArgs({
  options: {
    mountpoint: { type: "string" },
    size: { type: "string" },
    read: { type: "string" },
    start: { type: "string" },
    end: { type: "string" },
  },
});
try {
  if (values.read !== undefined) readAll(values.read, Number(values.start), Number(values.end));
  else await serve(values.mountpoint ?? "", Number(values.size));
} catch (error) {
  process.send?.({ failed: errorMessage(error) });
  process.exitCode = 1;
  process.disconnect();
}

/** The bitmap file of a cached layer, as a crash or a bad disk may leave it. */
import { DaemonError } from "../../../src/base/errors.ts";
import type { CacheFile } from "../../../src/cache/cache-files.ts";
import { countPresent, PresenceFile } from "../../../src/cache/presence-file.ts";
import type { FuzzTarget } from "../target.ts";

const IDENTITY = {
  kind: "decoded",
  blockCount: 100,
  tableSha256: Buffer.alloc(32, 7),
} as const;

/** A file in memory that counts as one on a disk. */
class SimFile implements CacheFile {
  bytes: Buffer;

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes);
  }

  async readAt(position: number, length: number): Promise<Buffer> {
    if (position + length > this.bytes.length) throw new DaemonError("data-loss", "file ends");
    return Buffer.from(this.bytes.subarray(position, position + length));
  }

  async writeAt(bytes: Uint8Array, position: number): Promise<void> {
    const size = Math.max(this.bytes.length, position + bytes.length);
    this.bytes = Buffer.concat([this.bytes, Buffer.alloc(size - this.bytes.length)]);
    this.bytes.set(bytes, position);
  }

  async truncate(sizeBytes: number): Promise<void> {
    this.bytes = Buffer.from(this.bytes.subarray(0, sizeBytes));
  }

  async stat() {
    const sizeBytes = this.bytes.length;
    return { sizeBytes, allocatedBytes: sizeBytes, modifiedMs: 0 };
  }

  async sync(): Promise<void> {}
  async punch(): Promise<void> {}
  async setModifiedTime(): Promise<void> {}
  async [Symbol.asyncDispose](): Promise<void> {}
}

async function presenceSample(): Promise<Buffer> {
  const file = new SimFile(Buffer.alloc(0));
  const presence = await PresenceFile.open(file, IDENTITY);
  await presence.set([0, 1, 50, 99], () => true);
  return file.bytes;
}

const SAMPLE = await presenceSample();

const PRESENCE: FuzzTarget = {
  name: "presence-file",
  seeds: () => [SAMPLE, Buffer.alloc(0)],
  run: async (bytes) => {
    countPresent(bytes);
    const file = new SimFile(bytes);
    const presence = await PresenceFile.open(file, IDENTITY);
    await presence.set([3, 98], () => true);
    await presence.clear([0, 98]);
    const isSound = presence.has(3) && !presence.has(0) && !presence.has(98);
    if (!isSound || countPresent(file.bytes) === 0)
      throw new Error("bits are not as they were set");
    const again = await PresenceFile.open(file, IDENTITY);
    if (!again.has(3)) throw new Error("the bitmap is not found again");
  },
};

export const CACHE_TARGETS: readonly FuzzTarget[] = [PRESENCE];

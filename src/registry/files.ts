/** Small files read whole, with a bound, and never from a pipe or a device. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { DaemonError } from "../base/errors.ts";

/** Opens a regular file for reading; O_NONBLOCK so that a fifo in its place cannot stall us. */
export async function openRegularFile(path: string): Promise<FileHandle> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stat = await file.stat();
    if (stat.isFile()) return file;
  } catch (error) {
    await file.close();
    throw error;
  }
  await file.close();
  throw new DaemonError("failed-precondition", `${path} is not a regular file`);
}

/** Throws `resource-exhausted` when the file is larger than `bytesMax`. */
export async function readBounded(
  file: FileHandle,
  path: string,
  bytesMax: number,
): Promise<Buffer> {
  const { size } = await file.stat();
  if (size > bytesMax) {
    throw new DaemonError("resource-exhausted", `${path} has ${size} bytes, over ${bytesMax}`);
  }
  const pieces: Buffer[] = [];
  let total = 0;
  for (;;) {
    const buffer = Buffer.allocUnsafe(Math.max(4096, size + 1 - total));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, total);
    if (bytesRead === 0) return Buffer.concat(pieces, total);
    total += bytesRead;
    if (total > bytesMax) {
      throw new DaemonError("resource-exhausted", `${path} grew over ${bytesMax} bytes`);
    }
    pieces.push(buffer.subarray(0, bytesRead));
  }
}

/** Opens, reads and closes. */
export async function readSmallFile(path: string, bytesMax: number): Promise<Buffer> {
  const file = await openRegularFile(path);
  try {
    return await readBounded(file, path, bytesMax);
  } finally {
    await file.close();
  }
}

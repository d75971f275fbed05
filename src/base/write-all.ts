/** One write(2) may take less than it is given. */
import type { FileHandle } from "node:fs/promises";

/** Writes all bytes at a position, or throws the system's error. */
export async function writeAll(
  handle: FileHandle,
  bytes: Uint8Array,
  position: number,
): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const left = bytes.length - done;
    const { bytesWritten } = await handle.write(bytes, done, left, position + done);
    done += bytesWritten;
  }
}

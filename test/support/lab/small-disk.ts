/** A small ext4 of its own in a file, so that a test may fill it. */
import { mkdir, open, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { unmountUnder } from "./kernel.ts";
import type { Lab } from "./lab.ts";
import { run } from "./process.ts";

const FILLER = "filler";
const FILL_PIECE_BYTES = 64 * 1024;

export class SmallDisk implements AsyncDisposable {
  /** Where it is mounted. */
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** Before what lives on it, or it is unmounted before that has ended. */
  static async make(lab: Lab, bytes: number): Promise<SmallDisk> {
    const base = await lab.makeFolder("disk");
    const [image, folder] = [join(base, "image"), join(base, "at")];
    await mkdir(folder);
    const file = await open(image, "w");
    await file.truncate(bytes);
    await file.close();
    // No reserve for root: a full disk is full for us too.
    await run("mkfs.ext4", [
      "-q",
      "-F",
      "-b",
      "4096",
      "-m",
      "0",
      "-E",
      "lazy_itable_init=0",
      image,
    ]);
    await run("mount", ["-o", "loop", image, folder]);
    return lab.use(new SmallDisk(folder));
  }

  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.folder);
    return bavail * bsize;
  }

  /** Takes all space but `leave`; again: what was freed meanwhile, too. */
  async fill(leave = 0): Promise<void> {
    const file = await open(join(this.folder, FILLER), "a");
    try {
      for (;;) {
        const rest = (await this.freeBytes()) - leave;
        if (rest <= 0) break;
        await file.appendFile(Buffer.alloc(Math.min(rest, FILL_PIECE_BYTES), 1));
        // Delayed allocation: only what is on the disk has taken its space.
        if (rest < 4 * FILL_PIECE_BYTES) await file.sync();
      }
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error;
    } finally {
      await file.sync().catch(() => undefined);
      await file.close();
    }
  }

  /** Gives back what `fill` took. */
  async free(): Promise<void> {
    await rm(join(this.folder, FILLER), { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await unmountUnder(this.folder);
  }
}

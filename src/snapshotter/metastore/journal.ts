/**
 * An append-only file of checksummed frames. `append` resolves when the frame is durable; `rewrite`
 * replaces everything, atomically (new file, sync, rename, sync of the folder).
 * One call at a time: the metastore serialises them.
 */
import { DaemonError, isDiskFull, withContext } from "../../base/errors.ts";
import { JOURNAL_BYTES_MAX } from "../limits.ts";
import { encodeFrame, readFrames } from "./frames.ts";
import type { JournalFile, JournalFiles } from "./journal-files.ts";

export const JOURNAL_NAME = "journal";
const NEW_NAME = "journal.new";

export interface OpenedJournal {
  readonly journal: Journal;
  /** Undefined: there was no journal; nothing may be appended before the first `rewrite`. */
  readonly payloads: readonly Buffer[] | undefined;
  /** Bytes of a torn last write that were cut off. */
  readonly tornBytes: number;
}

export class Journal implements AsyncDisposable {
  readonly #files: JournalFiles;
  #file: JournalFile | undefined;
  #bytes = 0;
  #sequence = 0;
  /** What lies behind `#bytes` is unknown (a failed write or sync): only a rewrite helps. */
  #isBroken: boolean;

  private constructor(files: JournalFiles, isBroken: boolean) {
    this.#files = files;
    this.#isBroken = isBroken;
  }

  /** Throws `data-loss` when the journal is damaged other than by a torn last write. */
  static async open(files: JournalFiles): Promise<OpenedJournal> {
    await files.remove(NEW_NAME);
    const bytes = await files.read(JOURNAL_NAME);
    if (bytes === undefined) {
      return { journal: new Journal(files, true), payloads: undefined, tornBytes: 0 };
    }
    if (bytes.length > JOURNAL_BYTES_MAX) {
      throw new DaemonError("data-loss", `journal of ${bytes.length} bytes is not one of ours`);
    }
    const content = readFrames(bytes);
    const journal = new Journal(files, false);
    journal.#file = await files.openExisting(JOURNAL_NAME);
    journal.#bytes = content.end;
    journal.#sequence = content.nextSequence;
    const tornBytes = bytes.length - content.end;
    if (tornBytes > 0) await journal.#file.truncate(content.end);
    // A killed predecessor may have got as far as the page cache only: the last frame, or the
    // rename of a whole new journal. What is shown from here on must not be lost with the power.
    await journal.#file.sync();
    await files.syncFolder();
    return { journal, payloads: content.payloads, tornBytes };
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** After a failure: nothing can be appended before a `rewrite`. */
  get isBroken(): boolean {
    return this.#isBroken;
  }

  async append(payload: Uint8Array): Promise<void> {
    const file = this.#file;
    if (file === undefined || this.#isBroken) {
      throw new DaemonError("unavailable", "journal must be rewritten first");
    }
    const frame = encodeFrame(this.#sequence, payload);
    // A failed fdatasync may have dropped the pages: nothing in this file can be trusted then.
    this.#isBroken = true;
    try {
      await file.write(frame, this.#bytes);
    } catch (error) {
      // A whole new journal finds no room either, while a smaller frame may: a removal, say.
      if (isDiskFull(error)) await this.#cutTail(file);
      throw withContext(error, "cannot append to the journal", diskCode(error));
    }
    try {
      await file.sync();
    } catch (error) {
      throw withContext(error, "cannot append to the journal", diskCode(error));
    }
    this.#isBroken = false;
    this.#bytes += frame.length;
    this.#sequence += 1;
  }

  /** Takes back a write that failed for want of room: what was synced before it still holds. */
  async #cutTail(file: JournalFile): Promise<void> {
    try {
      await file.truncate(this.#bytes);
      await file.sync();
      this.#isBroken = false;
    } catch {
      // It stays broken: a rewrite will say why.
    }
  }

  /** At least one payload. Until the rename the old file stays as it is, and in use. */
  async rewrite(payloads: Iterable<Uint8Array>): Promise<void> {
    const file = await this.#files.create(NEW_NAME);
    let bytes = 0;
    let sequence = this.#sequence;
    let isCurrent = false;
    try {
      for (const payload of payloads) {
        const frame = encodeFrame(sequence, payload);
        await file.write(frame, bytes);
        bytes += frame.length;
        sequence += 1;
      }
      await file.sync();
      // From here until the folder is synced a crash may bring back either file.
      this.#isBroken = true;
      await this.#files.rename(NEW_NAME, JOURNAL_NAME);
      isCurrent = true;
      await this.#files.syncFolder();
    } catch (error) {
      if (isCurrent) await this.#adopt(file, bytes, sequence);
      else await this.#discard(file);
      throw withContext(error, "cannot rewrite the journal", diskCode(error));
    }
    await this.#adopt(file, bytes, sequence);
    this.#isBroken = false;
  }

  /** A part of a new journal would hold the room that is short. */
  async #discard(file: JournalFile): Promise<void> {
    await file.close().catch(() => undefined);
    await this.#files.remove(NEW_NAME).catch(() => undefined);
  }

  async #adopt(file: JournalFile, bytes: number, sequence: number): Promise<void> {
    const old = this.#file;
    this.#file = file;
    this.#bytes = bytes;
    this.#sequence = sequence;
    await old?.close().catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    this.#isBroken = true;
    await file?.close();
  }
}

function diskCode(error: unknown): "resource-exhausted" | "unavailable" {
  return isDiskFull(error) ? "resource-exhausted" : "unavailable";
}

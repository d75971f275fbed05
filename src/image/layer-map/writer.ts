/**
 * Writes a layer map: windows are appended as they come, the rest follows, the head comes last.
 * The file gets its name only when it is whole and on disk.
 */
import { createHash, type Hash } from "node:crypto";
import { mkdir, open, rename, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { systemErrorName, withContext } from "../../base/errors.ts";
import { writeAll } from "../../base/write-all.ts";
import {
  encodeHead,
  LAYER_MAP_HEAD_BYTES,
  sectionPadding,
  type Section,
  type Sections,
} from "./format.ts";

/** Windows are gathered to this size before they are written. */
const WRITE_BYTES_MIN = 256 * 1024;

/** What a writer whose process was killed leaves. */
export function unfinishedMapPath(path: string): string {
  return `${path}.part`;
}

export class LayerMapWriter implements AsyncDisposable {
  readonly #path: string;
  readonly #temporaryPath: string;
  readonly #file: FileHandle;
  #position = LAYER_MAP_HEAD_BYTES;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  readonly #windowsHash: Hash = createHash("sha256");
  #windowsBytes = 0;
  #isOpen = true;

  private constructor(path: string, temporaryPath: string, file: FileHandle) {
    this.#path = path;
    this.#temporaryPath = temporaryPath;
    this.#file = file;
  }

  /** One process makes one map of a path at a time; what an earlier one left is overwritten. */
  static async create(path: string): Promise<LayerMapWriter> {
    const temporaryPath = unfinishedMapPath(path);
    try {
      await mkdir(dirname(path), { recursive: true });
      const file = await open(temporaryPath, "w", 0o600);
      return new LayerMapWriter(path, temporaryPath, file);
    } catch (error) {
      throw withContext(error, `cannot write ${temporaryPath}`);
    }
  }

  /** Returns the offset in the windows section. */
  async appendWindow(stored: Uint8Array): Promise<number> {
    const offset = this.#windowsBytes;
    this.#windowsBytes += stored.length;
    this.#windowsHash.update(stored);
    this.#pending.push(stored);
    this.#pendingBytes += stored.length;
    if (this.#pendingBytes >= WRITE_BYTES_MIN) await this.#flush();
    return offset;
  }

  /** Writes what remains, makes it durable and gives the file its name. */
  async finish(parts: {
    readonly info: Uint8Array;
    readonly meta: readonly Uint8Array[];
    readonly blocks: Uint8Array;
  }): Promise<{ readonly fileBytes: number }> {
    const windows: Section = {
      offset: LAYER_MAP_HEAD_BYTES,
      length: this.#windowsBytes,
      sha256: this.#windowsHash.digest(),
    };
    await this.#flush();
    const blocks = await this.#appendSection([parts.blocks]);
    const meta = await this.#appendSection(parts.meta);
    const info = await this.#appendSection([parts.info]);
    const sections: Sections = { info, meta, blocks, windows };
    const fileBytes = this.#position;
    await this.#file.write(encodeHead(sections, fileBytes), 0, LAYER_MAP_HEAD_BYTES, 0);
    await this.#file.sync();
    await this.#close();
    await rename(this.#temporaryPath, this.#path);
    await syncDirectory(dirname(this.#path));
    return { fileBytes };
  }

  /** Removes the unfinished file; nothing after `finish`. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOpen) return;
    await this.#close();
    await rm(this.#temporaryPath, { force: true });
  }

  async #close(): Promise<void> {
    this.#isOpen = false;
    await this.#file.close();
  }

  async #appendSection(pieces: readonly Uint8Array[]): Promise<Section> {
    await this.#write(Buffer.alloc(sectionPadding(this.#position)));
    const offset = this.#position;
    const hash = createHash("sha256");
    for (const piece of pieces) {
      hash.update(piece);
      await this.#write(piece);
    }
    return { offset, length: this.#position - offset, sha256: hash.digest() };
  }

  async #flush(): Promise<void> {
    const bytes = Buffer.concat(this.#pending);
    this.#pending = [];
    this.#pendingBytes = 0;
    await this.#write(bytes);
  }

  async #write(bytes: Uint8Array): Promise<void> {
    try {
      await writeAll(this.#file, bytes, this.#position);
    } catch (error) {
      throw withContext(error, `cannot write ${this.#temporaryPath}`);
    }
    this.#position += bytes.length;
  }
}

/** Makes a rename durable. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } catch (error) {
    // Some file systems cannot sync directories; there the rename is as durable as it gets.
    if (systemErrorName(error) !== "EINVAL") throw withContext(error, `sync of ${path}`);
  } finally {
    await directory.close();
  }
}

/**
 * An open layer map. The block table is resident (about 100 bytes per MiB of layer); metadata is
 * read when asked for; windows are read one by one. Every byte is checked before it is used: a map
 * may come from a peer or a registry, or from a disk with other ideas.
 */
import { createHash } from "node:crypto";
import { open, type FileHandle } from "node:fs/promises";
import { DaemonError, withContext } from "../../base/errors.ts";
import { BlockTable, type Block } from "../../block/index.ts";
import {
  LAYER_MAP_HEAD_BYTES,
  malformed,
  parseHead,
  type Section,
  type Sections,
} from "./format.ts";
import { parseInfo, type LayerMapInfo } from "./info.ts";
import { decodeWindow, STORED_WINDOW_BYTES_MAX } from "./window.ts";

const READ_BYTES_MAX = 8 * 1024 * 1024;

export interface OpenLayerMapOptions {
  /** Refuses a map of another layer. */
  readonly diffId?: string;
}

export interface LayerMapSizes {
  readonly fileBytes: number;
  readonly metadataBytes: number;
  readonly blocksBytes: number;
  readonly windowsBytes: number;
}

export class LayerMap implements AsyncDisposable {
  readonly path: string;
  readonly info: LayerMapInfo;
  readonly blockTable: BlockTable;
  readonly sizes: LayerMapSizes;
  readonly #file: FileHandle;
  readonly #sections: Sections;
  #closed: Promise<void> | undefined;

  private constructor(
    path: string,
    file: FileHandle,
    parts: {
      readonly sections: Sections;
      readonly info: LayerMapInfo;
      readonly blockTable: BlockTable;
      readonly fileBytes: number;
    },
  ) {
    this.path = path;
    this.#file = file;
    this.#sections = parts.sections;
    this.info = parts.info;
    this.blockTable = parts.blockTable;
    this.sizes = {
      fileBytes: parts.fileBytes,
      metadataBytes: parts.sections.meta.length,
      blocksBytes: parts.sections.blocks.length,
      windowsBytes: parts.sections.windows.length,
    };
  }

  /** Throws `not-found` without a file, `data-loss` for one that is no sound map. */
  static async open(path: string, options: OpenLayerMapOptions = {}): Promise<LayerMap> {
    const file = await openFile(path);
    try {
      return await LayerMap.#read(path, file, options);
    } catch (error) {
      await file.close();
      throw withContext(error, `layer map ${path}`);
    }
  }

  static async #read(
    path: string,
    file: FileHandle,
    options: OpenLayerMapOptions,
  ): Promise<LayerMap> {
    const { size: fileBytes } = await file.stat();
    const head = Buffer.alloc(LAYER_MAP_HEAD_BYTES);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    const sections = parseHead(head.subarray(0, bytesRead), fileBytes);
    const info = parseInfo(await readSection(file, sections.info, "info"));
    if (options.diffId !== undefined && info.diffId !== options.diffId) {
      throw malformed(`it is of layer ${info.diffId}, not ${options.diffId}`);
    }
    const blocks = await readSection(file, sections.blocks, "blocks");
    const blockTable = BlockTable.parse(blocks, { blobBytes: info.blobBytes });
    if (blockTable.tarBytes !== info.tarBytes) {
      throw malformed(`blocks of ${blockTable.tarBytes} bytes, layer of ${info.tarBytes}`);
    }
    return new LayerMap(path, file, { sections, info, blockTable, fileBytes });
  }

  /** The layer's unmerged EROFS metadata, verified. The caller owns the buffer. */
  async readMetadata(): Promise<Buffer> {
    return this.#wrap(readSection(this.#file, this.#sections.meta, "meta"));
  }

  /** The window that the block's decoding starts from; undefined where it needs none. */
  async readWindow(block: Block): Promise<Uint8Array | undefined> {
    if (block.windowLength === 0) return undefined;
    return this.#wrap(this.#readWindow(block));
  }

  /** Reads and checks every byte of the file; throws `data-loss`. For maps from elsewhere. */
  async verify(): Promise<void> {
    await this.#wrap(this.#verify());
  }

  async close(): Promise<void> {
    this.#closed ??= this.#file.close();
    await this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #readWindow(block: Block): Promise<Uint8Array> {
    const { offset, length } = this.#sections.windows;
    const end = block.windowOffset + block.windowLength;
    if (block.windowLength > STORED_WINDOW_BYTES_MAX || end > length) {
      throw malformed(`window of block ${block.index}`);
    }
    const stored = Buffer.allocUnsafe(block.windowLength);
    await readExactly(this.#file, stored, offset + block.windowOffset);
    return decodeWindow(stored);
  }

  async #verify(): Promise<void> {
    for (const type of ["meta", "windows"] as const) {
      const section = this.#sections[type];
      const hash = createHash("sha256");
      const buffer = Buffer.allocUnsafe(Math.min(section.length, READ_BYTES_MAX));
      for (let done = 0; done < section.length; done += buffer.length) {
        const piece = buffer.subarray(0, Math.min(buffer.length, section.length - done));
        await readExactly(this.#file, piece, section.offset + done);
        hash.update(piece);
      }
      if (!hash.digest().equals(section.sha256)) throw malformed(`${type} digest`);
    }
    for (let index = 0; index < this.blockTable.count; index += 1) {
      const block = this.blockTable.at(index);
      if (block.windowLength > 0) await this.#readWindow(block);
    }
  }

  async #wrap<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      throw withContext(error, `layer map ${this.path}`);
    }
  }
}

export async function openLayerMap(
  path: string,
  options: OpenLayerMapOptions = {},
): Promise<LayerMap> {
  return LayerMap.open(path, options);
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (error) {
    throw new DaemonError("not-found", `layer map ${path} cannot be opened`, { cause: error });
  }
}

async function readSection(file: FileHandle, section: Section, name: string): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(section.length);
  await readExactly(file, bytes, section.offset);
  if (!createHash("sha256").update(bytes).digest().equals(section.sha256)) {
    throw malformed(`${name} digest`);
  }
  return bytes;
}

async function readExactly(file: FileHandle, buffer: Buffer, offset: number): Promise<void> {
  let done = 0;
  while (done < buffer.length) {
    const length = Math.min(buffer.length - done, READ_BYTES_MAX);
    const { bytesRead } = await file.read(buffer, done, length, offset + done);
    if (bytesRead === 0) throw malformed("file is cut short");
    done += bytesRead;
  }
}

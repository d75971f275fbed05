/**
 * Where an image's bytes come from. The parser is written once, as generators that ask for byte
 * ranges; a buffer answers at once, a file by asynchronous reads.
 */
import type { FileHandle } from "node:fs/promises";
import { throwIfAborted } from "../base/abort.ts";
import { dataLoss } from "./format.ts";

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** A piece of parsing: yields the ranges that it needs, gets their bytes. */
export type Parse<T> = Generator<ByteRange, T, Buffer>;

/** An image that is read by offset, such as a file; reads inside `size` return every byte. */
export interface RandomAccess {
  readonly size: number;
  read(range: ByteRange, options: { readonly signal: AbortSignal }): Promise<Buffer> | Buffer;
}

function checkRange(range: ByteRange, size: number): void {
  const { offset, length } = range;
  const isInside = Number.isSafeInteger(offset) && offset >= 0 && length >= 0;
  if (!isInside || offset + length > size) {
    throw dataLoss(`bytes ${offset}+${length} lie outside the image of ${size}`);
  }
}

export function parseBuffer<T>(image: Buffer, parse: Parse<T>): T {
  let step = parse.next();
  while (step.done !== true) {
    const { offset, length } = step.value;
    checkRange(step.value, image.length);
    step = parse.next(image.subarray(offset, offset + length));
  }
  return step.value;
}

export async function parseRandomAccess<T>(
  source: RandomAccess,
  parse: Parse<T>,
  options: { readonly signal: AbortSignal },
): Promise<T> {
  let step = parse.next();
  while (step.done !== true) {
    const { length } = step.value;
    checkRange(step.value, source.size);
    throwIfAborted(options.signal);
    const bytes = await source.read(step.value, options);
    if (bytes.length !== length) throw dataLoss(`${bytes.length} of ${length} bytes could be read`);
    step = parse.next(bytes);
  }
  return step.value;
}

const PAGE_BYTES = 4096;
/** 1 MiB of an image in memory; a page of metadata serves some thirty inodes. */
const PAGES_MAX = 256;

/** A file with its latest pages kept in memory. Does not own the handle. */
export class PagedFile implements RandomAccess {
  readonly size: number;
  readonly #file: FileHandle;
  /** Least recently used first. */
  readonly #pages = new Map<number, Buffer>();

  constructor(file: FileHandle, size: number) {
    this.#file = file;
    this.size = size;
  }

  async read(range: ByteRange): Promise<Buffer> {
    const { offset, length } = range;
    const first = Math.floor(offset / PAGE_BYTES);
    const last = Math.floor((offset + Math.max(length, 1) - 1) / PAGE_BYTES);
    if (last - first >= PAGES_MAX / 4) return this.#pread(offset, length);
    const pages: Buffer[] = [];
    for (let index = first; index <= last; index += 1) pages.push(await this.#page(index));
    const start = offset - first * PAGE_BYTES;
    const [only] = pages;
    const bytes = pages.length === 1 && only !== undefined ? only : Buffer.concat(pages);
    return bytes.subarray(start, start + length);
  }

  async #page(index: number): Promise<Buffer> {
    const known = this.#pages.get(index);
    this.#pages.delete(index);
    const offset = index * PAGE_BYTES;
    const page = known ?? (await this.#pread(offset, Math.min(PAGE_BYTES, this.size - offset)));
    this.#pages.set(index, page);
    const oldest = this.#pages.keys().next();
    if (this.#pages.size > PAGES_MAX && oldest.done !== true) this.#pages.delete(oldest.value);
    return page;
  }

  async #pread(offset: number, length: number): Promise<Buffer> {
    const bytes = Buffer.alloc(length);
    let filled = 0;
    while (filled < length) {
      const { bytesRead } = await this.#file.read(bytes, filled, length - filled, offset + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return bytes.subarray(0, filled);
  }
}

/** Blobs that are byte ranges of local files, and documents read from them. */
import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { throwIfAborted } from "../../base/abort.ts";
import { DaemonError } from "../../base/errors.ts";
import type { ByteRange } from "../../base/range-set.ts";
import { digestFromHash } from "../../oci/index.ts";
import type { Digest } from "../../oci/index.ts";
import { openRegularFile } from "../files.ts";
import type { BlobOptions } from "../image-source.ts";
import { FILE_PIECE_BYTES } from "../limits.ts";

/** Where a blob's bytes lie; undefined range is the whole file. */
export interface FileRegion {
  readonly path: string;
  readonly range: ByteRange | undefined;
}

async function regionOf(file: FileHandle, region: FileRegion): Promise<ByteRange> {
  const { size } = await file.stat();
  const range = region.range ?? { start: 0, end: size };
  if (range.end <= size) return range;
  throw new DaemonError("data-loss", `${region.path} ends at ${size} of ${range.end} bytes`);
}

/** Exactly the bytes of the file's range, in fresh buffers. */
async function* readPieces(
  file: FileHandle,
  path: string,
  range: ByteRange,
  { signal }: { readonly signal: AbortSignal },
): AsyncGenerator<Buffer, void, undefined> {
  let position = range.start;
  while (position < range.end) {
    throwIfAborted(signal);
    const wanted = Math.min(FILE_PIECE_BYTES, range.end - position);
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(wanted), 0, wanted, position);
    if (bytesRead === 0) {
      throw new DaemonError("data-loss", `${path} ends at ${position} of ${range.end} bytes`);
    }
    position += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

async function* readBlob(
  region: FileRegion,
  within: ByteRange,
  digest: Digest | undefined,
  { signal }: { readonly signal: AbortSignal },
): AsyncGenerator<Uint8Array, void, undefined> {
  const hash = digest === undefined ? undefined : createHash("sha256");
  // Opened by the reader, so that a stream that nobody reads holds no descriptor.
  const file = await openRegularFile(region.path);
  try {
    for await (const piece of readPieces(file, region.path, within, { signal })) {
      hash?.update(piece);
      yield piece;
    }
  } finally {
    await file.close();
  }
  if (hash === undefined || digest === undefined) return;
  const actual = digestFromHash(hash.digest());
  if (actual !== digest) throw new DaemonError("data-loss", `blob ${digest} hashes to ${actual}`);
}

/** As BlobRangeReader.open, for one local blob. */
export async function openRegion(
  region: FileRegion,
  digest: Digest,
  range: ByteRange | undefined,
  options: BlobOptions,
): Promise<AsyncIterable<Uint8Array>> {
  throwIfAborted(options.signal);
  const file = await openRegularFile(region.path);
  let whole: ByteRange;
  try {
    whole = await regionOf(file, region);
  } finally {
    await file.close();
  }
  const size = whole.end - whole.start;
  if (options.size !== undefined && options.size !== size) {
    throw new DaemonError(
      "data-loss",
      `blob ${digest} has ${size} bytes in ${region.path}, not ${options.size}`,
    );
  }
  const wanted = range ?? { start: 0, end: size };
  const isSound =
    Number.isSafeInteger(wanted.start) && wanted.start >= 0 && wanted.start <= wanted.end;
  if (!isSound || wanted.end > size) {
    throw new DaemonError(
      "out-of-range",
      `range ${wanted.start} to ${wanted.end} of ${size} bytes`,
    );
  }
  const within = { start: whole.start + wanted.start, end: whole.start + wanted.end };
  const isVerified = range === undefined && options.verify !== false;
  return readBlob(region, within, isVerified ? digest : undefined, options);
}

/** The bytes of a document; `data-loss` when it is larger than `bytesMax`. */
export async function readRegion(
  region: FileRegion,
  bytesMax: number,
  { signal }: { readonly signal: AbortSignal },
): Promise<Buffer> {
  const file = await openRegularFile(region.path);
  try {
    const range = await regionOf(file, region);
    if (range.end - range.start > bytesMax) {
      throw new DaemonError("data-loss", `${region.path}: a document is over ${bytesMax} bytes`);
    }
    const pieces: Buffer[] = [];
    for await (const piece of readPieces(file, region.path, range, { signal })) pieces.push(piece);
    return Buffer.concat(pieces);
  } finally {
    await file.close();
  }
}

/** Size and digest of a region, for a blob whose name nobody wrote down. */
export async function hashRegion(
  region: FileRegion,
  { signal }: { readonly signal: AbortSignal },
): Promise<Digest> {
  const file = await openRegularFile(region.path);
  try {
    const range = await regionOf(file, region);
    const hash = createHash("sha256");
    for await (const piece of readPieces(file, region.path, range, { signal })) hash.update(piece);
    return digestFromHash(hash.digest());
  } finally {
    await file.close();
  }
}

/**
 * Where the files of an image archive (a tar) lie in it. tar-stream reads the headers; the bodies
 * are not read from the disk: it only counts their bytes, so it is fed zeros in their place.
 */
import type { FileHandle } from "node:fs/promises";
import { posix } from "node:path";
import { extract } from "tar-stream";
import type { Extract, Header } from "tar-stream";
import { abortReason, throwIfAborted } from "../../base/abort.ts";
import { DaemonError } from "../../base/errors.ts";
import type { ByteRange } from "../../base/range-set.ts";
import { openRegularFile } from "../files.ts";
import { ARCHIVE_ENTRIES_MAX, ARCHIVE_LINKS_MAX, ARCHIVE_READ_BYTES } from "../limits.ts";

type ArchiveEntry =
  | { readonly kind: "file"; readonly range: ByteRange }
  | { readonly kind: "link"; readonly target: string };

/** Names as in the archive, normalized: no `./`, no `..`, no leading slash. */
export class TarIndex {
  readonly #entries: ReadonlyMap<string, ArchiveEntry>;

  constructor(entries: ReadonlyMap<string, ArchiveEntry>) {
    this.#entries = entries;
  }

  /** Follows links inside the archive; undefined when there is no such file. */
  find(name: string): ByteRange | undefined {
    let current = normalizeName(name);
    for (let hops = 0; hops <= ARCHIVE_LINKS_MAX && current !== undefined; hops += 1) {
      const entry = this.#entries.get(current);
      if (entry === undefined) return undefined;
      if (entry.kind === "file") return entry.range;
      current = entry.target;
    }
    return undefined;
  }
}

/** Undefined for a name that leads out of the archive. */
function normalizeName(name: string): string | undefined {
  const normal = posix.normalize(name.replace(/^\/+/, "")).replace(/\/$/, "");
  const isInside = normal !== "" && normal !== "." && normal !== ".." && !normal.startsWith("../");
  return isInside && !normal.includes("\0") ? normal : undefined;
}

/** docker save of old writes a shared layer as a link: `../OTHER/layer.tar`. */
function linkTarget(header: Header): string | undefined {
  // Null where the header has none, whatever its type says.
  const target: unknown = header.linkname;
  if (typeof target !== "string" || target === "") return undefined;
  if (header.type === "link") return normalizeName(target);
  if (target.startsWith("/")) return undefined;
  return normalizeName(posix.join(posix.dirname(header.name), target));
}

/** tar-stream notes where an entry's data begin, but its types do not say so. */
function dataOffset(header: Header): number {
  const offset: unknown = Reflect.get(header, "byteOffset");
  if (typeof offset === "number" && Number.isSafeInteger(offset)) return offset;
  throw new DaemonError("internal", "tar-stream does not tell an entry's offset");
}

const ZEROS = Buffer.alloc(ARCHIVE_READ_BYTES);

/** Feeds the archive, zeros where an entry's data are known to lie. */
class Feeder {
  readonly #file: FileHandle;
  readonly #size: number;
  #position = 0;
  /** Up to here no byte matters. */
  skipUntil = 0;

  constructor(file: FileHandle, size: number) {
    this.#file = file;
    this.#size = size;
  }

  async *run({ signal }: { readonly signal: AbortSignal }): AsyncGenerator<Buffer> {
    while (this.#position < this.#size) {
      throwIfAborted(signal);
      const idle = Math.min(this.skipUntil, this.#size) - this.#position;
      const wanted = Math.min(ARCHIVE_READ_BYTES, idle > 0 ? idle : this.#size - this.#position);
      if (idle > 0) {
        this.#position += wanted;
        yield ZEROS.subarray(0, wanted);
        continue;
      }
      const buffer = Buffer.allocUnsafe(Math.min(wanted, 16 * 1024));
      const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, this.#position);
      if (bytesRead === 0) return;
      this.#position += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }
}

async function feed(reader: Extract, pieces: AsyncIterable<Buffer>): Promise<void> {
  for await (const piece of pieces) {
    if (reader.destroyed) return;
    if (reader.write(piece)) continue;
    await new Promise<void>((resolve) => {
      const go = (): void => {
        reader.off("drain", go);
        reader.off("close", go);
        resolve();
      };
      reader.on("drain", go);
      reader.on("close", go);
    });
  }
  reader.end(undefined);
}

async function checkMagic(file: FileHandle, path: string): Promise<void> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(4), 0, 4, 0);
  const isGzip = bytesRead >= 2 && buffer[0] === 0x1f && buffer[1] === 0x8b;
  const isZstd = bytesRead === 4 && buffer.readUInt32LE(0) === 0xfd2fb528;
  if (!isGzip && !isZstd) return;
  throw new DaemonError(
    "invalid-argument",
    `${path} is compressed (${isGzip ? "gzip" : "zstd"}): decompress it first, ` +
      "its blobs cannot be read by range otherwise",
  );
}

/** One pass over the headers. Throws `data-loss` for what is no tar or is cut off. */
export async function indexTar(
  path: string,
  { signal }: { readonly signal: AbortSignal },
): Promise<TarIndex> {
  const file = await openRegularFile(path);
  const reader = extract({});
  try {
    await checkMagic(file, path);
    const { size } = await file.stat();
    const feeder = new Feeder(file, size);
    const entries = new Map<string, ArchiveEntry>();
    const done = new Promise<void>((resolve, reject) => {
      reader.on("entry", (header, stream, next) => {
        try {
          const offset = dataOffset(header);
          const length = header.size;
          if (offset + length > size) throw new DaemonError("data-loss", `${path} is cut off`);
          feeder.skipUntil = offset + length;
          addEntry(entries, header, { start: offset, end: offset + length });
        } catch (error) {
          reject(error);
          reader.destroy();
          return;
        }
        stream.on("end", next);
        stream.resume();
      });
      reader.on("error", (error) => {
        reject(new DaemonError("data-loss", `${path} is not a tar archive`, { cause: error }));
      });
      reader.on("finish", resolve);
      reader.on("close", resolve);
    });
    await Promise.all([done, feed(reader, feeder.run({ signal }))]);
    return new TarIndex(entries);
  } catch (error) {
    if (signal.aborted) throw abortReason(signal);
    throw error;
  } finally {
    reader.destroy();
    await file.close();
  }
}

/** A name written twice means its last entry, as for tar. */
function addEntry(entries: Map<string, ArchiveEntry>, header: Header, range: ByteRange): void {
  const name = normalizeName(header.name);
  if (name === undefined) return;
  if (entries.size >= ARCHIVE_ENTRIES_MAX) {
    throw new DaemonError("data-loss", `an archive of more than ${ARCHIVE_ENTRIES_MAX} entries`);
  }
  if (header.type === "file" || header.type === "contiguous-file") {
    entries.set(name, { kind: "file", range });
    return;
  }
  const target =
    header.type === "symlink" || header.type === "link" ? linkTarget(header) : undefined;
  if (target !== undefined) entries.set(name, { kind: "link", target });
}

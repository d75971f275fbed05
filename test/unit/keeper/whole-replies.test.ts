/**
 * FUSE replies are whole or an error: every read of a layer's data device and of a file in fuse
 * mode, with each way in which a fetch can end, from each 4 KiB of the read on.
 */
import assert from "node:assert/strict";
import { mkdtemp, open, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type Fuse from "fuse-native";
import { DaemonError } from "../../../src/base/errors.ts";
import { silentLogger } from "../../../src/base/log.ts";
import type { ByteRange } from "../../../src/base/range-set.ts";
import {
  defaultDirectory,
  ErofsInodeInput,
  ErofsReader,
  FILE_TYPE,
  writeErofs,
} from "../../../src/erofs/index.ts";
import type { FuseFileSystem } from "../../../src/fuse/file-system.ts";
import { FuseOperations } from "../../../src/fuse/operations.ts";
import { DataFileSystem } from "../../../src/keeper/data-file-system.ts";
import { FetchQueue } from "../../../src/keeper/fetch-queue.ts";
import { LayerDevice } from "../../../src/keeper/layer-device.ts";
import { TouchedLog } from "../../../src/keeper/touched-log.ts";
import { TreeFileSystem } from "../../../src/keeper/tree-file-system.ts";
import { FakeClock } from "../../support/block/fake-clock.ts";

const LAYER = "d".repeat(64);
const PAGE = 4096;
const REQUEST_BYTES = 8 * PAGE;
const TAR_BYTES = 20 * PAGE + 700;
const SIZE = 20 * PAGE + 1024;
/** The tree's file: not at a page's border of the device, with a hole, and bytes of both kinds. */
const FILE_AT = 5 * 512;
const FILE_BYTES = 16 * PAGE + 100;
const EIO = -5;
const NOTHING = new Uint8Array(0);

function tarBytes(start: number, end: number): Buffer {
  const bytes = Buffer.alloc(end - start);
  for (let at = 0; at < bytes.length; at += 1) {
    const offset = start + at;
    bytes[at] = offset < TAR_BYTES ? ((offset >> 8) % 255) + 1 : 0;
  }
  return bytes;
}

/** How a fetch of what is not present ends once it touches what cannot be read. */
const FAULTS: Readonly<Record<string, (context: Faulty, range: ByteRange) => Promise<object>>> = {
  "is an error": () => Promise.reject(new DaemonError("data-loss", "wrong digest")),
  "is out of time": () => Promise.reject(new DaemonError("deadline-exceeded", "too long")),
  "throws something else": () => Promise.reject(new TypeError("broken")),
  "brings too few bytes": (_context, range) =>
    Promise.resolve({ present: [], data: tarBytes(range.start, range.end - 1) }),
  "brings too many bytes": (_context, range) =>
    Promise.resolve({ present: [], data: tarBytes(range.start, range.end + 1) }),
  "brings nothing": () => Promise.resolve({ present: [], data: NOTHING }),
  "is no answer at all": () => Promise.resolve({ nonsense: true }),
  "names a range that is dropped at once": async (context, range) => {
    const answer = { present: [range], data: NOTHING };
    void context.device.drop([range]);
    return Promise.resolve(answer);
  },
  "names what the decoded file does not have": async (context, range) => {
    if (!context.isShort) await truncate(context.decodedPath, range.start);
    context.isShort = true;
    return { present: [range], data: NOTHING };
  },
};

/** One device whose source is good up to an offset. */
class Faulty {
  readonly decodedPath: string;
  readonly clock = new FakeClock();
  readonly #queue = new FetchQueue({ clock: this.clock, log: silentLogger });
  readonly device: LayerDevice;
  readonly #service;
  goodEnd = TAR_BYTES;
  /** The decoded file has been cut off since the last reset. */
  isShort = false;
  /** What is good comes as bytes, or by way of the decoded file. */
  way: "data" | "present" = "data";
  fault = "is an error";

  constructor(decodedPath: string) {
    this.decodedPath = decodedPath;
    this.#queue.attach({
      isClosed: false,
      call: (_method, request) => this.#fetch(request as ByteRange),
    });
    const sizes = { size: SIZE, tarBytes: TAR_BYTES };
    this.#service = { ...sizes, decodedPath, present: [], readWaitMs: 1000 };
    const counters = { reads: 0, readsPresent: 0, readsMissed: 0, bytes: 0 };
    const options = { layer: LAYER, queue: this.#queue, touched: new TouchedLog(), counters };
    this.device = new LayerDevice(this.#service, { ...options, log: silentLogger });
  }

  /** Nothing present, the decoded file whole up to where the source is good. */
  async reset(goodEnd: number): Promise<void> {
    this.goodEnd = goodEnd;
    this.isShort = false;
    const file = await open(this.decodedPath, "w");
    await file.write(tarBytes(0, goodEnd));
    await file.truncate(TAR_BYTES);
    await file.close();
    await this.device.serve(this.#service);
  }

  async #fetch(range: ByteRange): Promise<object> {
    if (range.end <= this.goodEnd && this.way === "data") {
      return { present: [], data: tarBytes(range.start, range.end) };
    }
    if (range.start < this.goodEnd && this.way === "present") {
      return { present: [{ start: 0, end: this.goodEnd }], data: NOTHING };
    }
    return FAULTS[this.fault]?.(this, range) ?? {};
  }
}

interface Answer {
  readonly result: number;
  readonly bytes: Buffer;
}

/** As the kernel asks through fuse-native: the handle of one file, then reads. */
class Asking {
  readonly #native = {} as unknown as Fuse;
  readonly #path: string;

  constructor(fileSystem: FuseFileSystem, path: string) {
    const none = (): void => undefined;
    new FuseOperations(fileSystem, none, none).install(this.#native);
    this.#path = path;
  }

  async open(): Promise<number> {
    return new Promise((resolve) => {
      this.#native._op_open(
        (_result, handle) => {
          resolve(Number(handle));
        },
        this.#path,
        0,
      );
    });
  }

  /** Fails when there is not exactly one answer. */
  async read(handle: number, offset: number, length: number): Promise<Answer> {
    const bytes = Buffer.alloc(length, 0xee);
    let answers = 0;
    const result = await new Promise<number>((resolve) => {
      this.#native._op_read(
        (value) => {
          answers += 1;
          resolve(value);
        },
        this.#path,
        handle,
        bytes,
        length,
        offset,
        0,
      );
    });
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(answers, 1);
    return { result, bytes };
  }
}

function fileTree(device: LayerDevice): TreeFileSystem {
  const root = new ErofsInodeInput(defaultDirectory());
  const attributes = { ...defaultDirectory(), mode: FILE_TYPE.regular | 0o644 };
  const half = 7 * PAGE;
  const extents = [
    { fileOffset: 0, length: half, device: 1, deviceOffset: FILE_AT },
    {
      fileOffset: half + PAGE,
      length: FILE_BYTES - half - PAGE,
      device: 1,
      deviceOffset: FILE_AT + half,
    },
  ];
  const data = { kind: "extents" as const, size: FILE_BYTES, extents };
  root.entries?.set("file", new ErofsInodeInput(attributes, { data }));
  const metadata = ErofsReader.open(writeErofs(root, { devices: [{ bytes: SIZE }] }));
  return new TreeFileSystem(metadata, [device]);
}

function treeBytes(start: number, end: number): Buffer {
  const half = 7 * PAGE;
  const whole = Buffer.concat([
    tarBytes(FILE_AT, FILE_AT + half),
    Buffer.alloc(PAGE),
    tarBytes(FILE_AT + half, FILE_AT + FILE_BYTES - PAGE),
  ]);
  return whole.subarray(start, end);
}

describe("a FUSE reply to a read", () => {
  let folder: string;
  let faulty: Faulty;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "faasnet-w-"));
    faulty = new Faulty(join(folder, "decoded"));
    await faulty.reset(TAR_BYTES);
  });

  afterEach(async () => {
    await faulty.device[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  /** Counts; every answer is checked. */
  async function check(
    asking: Asking,
    size: number,
    right: (start: number, end: number) => Buffer,
  ): Promise<{ whole: number; errors: number }> {
    const handle = await asking.open();
    const counts = { whole: 0, errors: 0 };
    for (const way of ["data", "present"] as const) {
      faulty.way = way;
      for (let goodEnd = 0; goodEnd <= TAR_BYTES; goodEnd += PAGE) {
        await faulty.reset(goodEnd);
        for (let offset = 0; offset < size; offset += REQUEST_BYTES) {
          const { result, bytes } = await asking.read(handle, offset, REQUEST_BYTES);
          const where = `${way}, good up to ${goodEnd}, read at ${offset}`;
          if (result < 0) {
            assert.equal(result, EIO, where);
            counts.errors += 1;
            continue;
          }
          const end = Math.min(offset + REQUEST_BYTES, size);
          assert.equal(result, end - offset, where);
          assert.ok(bytes.subarray(0, result).equals(right(offset, end)), where);
          counts.whole += 1;
        }
      }
    }
    return counts;
  }

  for (const fault of Object.keys(FAULTS)) {
    it(`is whole or an error when a fetch ${fault}`, async () => {
      faulty.fault = fault;
      const device = new Asking(new DataFileSystem(faulty.device), "/data");
      const data = await check(device, SIZE, tarBytes);
      assert.ok(data.whole > 20 && data.errors > 20, JSON.stringify(data));
      const tree = new Asking(fileTree(faulty.device), "/file");
      const file = await check(tree, FILE_BYTES, treeBytes);
      assert.ok(file.whole > 20 && file.errors > 20, JSON.stringify(file));
    });
  }
});

/** The check of a mode against models of kernels: a right one, and each way of being wrong. */
import assert from "node:assert/strict";
import type { ByteRange } from "../../../src/base/range-set.ts";
import { CHECKED_BYTES, findFault } from "../../../src/rootfs/mode-check.ts";
import type { CheckedFile, FaultyDevice } from "../../../src/rootfs/mode-check.ts";

const PAGE = 4096;
const AHEAD_PAGES = 32;

type Defect =
  | "none"
  | "zeros to the reader"
  | "zeros kept after an error"
  | "zeros kept after a kill"
  | "the error is swallowed"
  | "an end instead of an error"
  | "the error stays";

/** A page cache over a device, filled by read-ahead. */
class ModelKernel implements CheckedFile, FaultyDevice {
  readonly #defect: Defect;
  readonly #cache = new Map<number, Buffer>();
  #failing: ByteRange | undefined;
  kills = 0;

  constructor(defect: Defect) {
    this.#defect = defect;
  }

  #fromDevice(page: number): Buffer {
    const data = Buffer.alloc(PAGE);
    for (let at = 0; at < PAGE; at += 4) {
      data.writeUInt32LE(Math.floor((page * PAGE + at) / 512) + 1, at);
    }
    return data;
  }

  #hits(page: number, range: ByteRange | undefined): boolean {
    return range !== undefined && page * PAGE < range.end && (page + 1) * PAGE > range.start;
  }

  /** Fills the window from `page` on, up to what fails; answers whether that was cut short. */
  #fill(page: number, bad: ByteRange | undefined, keepsZeros: boolean): boolean {
    const end = Math.min(page + AHEAD_PAGES, CHECKED_BYTES / PAGE);
    for (let at = page; at < end; at += 1) {
      if (this.#cache.has(at)) continue;
      if (!this.#hits(at, bad)) {
        this.#cache.set(at, this.#fromDevice(at));
        continue;
      }
      // The rest of the request: a kernel that is wrong takes it as filled.
      if (keepsZeros && at > page) {
        for (; at < end; at += 1) this.#cache.set(at, Buffer.alloc(PAGE));
      }
      return true;
    }
    return false;
  }

  read(
    buffer: Uint8Array,
    at: number,
    length: number,
    position: number,
  ): Promise<{ bytesRead: number }> {
    const page = Math.floor(position / PAGE);
    if (!this.#cache.has(page)) {
      const swallows = this.#defect === "the error is swallowed";
      const failing = swallows ? undefined : this.#failing;
      this.#fill(page, failing, this.#defect === "zeros kept after an error");
    }
    const data = this.#cache.get(page);
    const from = position - page * PAGE;
    const bytesRead = Math.min(length, PAGE - from);
    if (data !== undefined) {
      buffer.set(data.subarray(from, from + bytesRead), at);
    } else if (this.#defect === "zeros to the reader") {
      buffer.fill(0, at, at + bytesRead);
    } else if (this.#defect === "an end instead of an error") {
      return Promise.resolve({ bytesRead: 0 });
    } else return Promise.reject(new Error("EIO"));
    return Promise.resolve({ bytesRead });
  }

  fail(range: ByteRange): Promise<void> {
    this.#failing = range;
    return Promise.resolve();
  }

  clear(): Promise<void> {
    if (this.#defect !== "the error stays") this.#failing = undefined;
    return Promise.resolve();
  }

  killReader(range: ByteRange, stalling: ByteRange): Promise<void> {
    this.kills += 1;
    const keepsZeros = this.#defect === "zeros kept after a kill";
    for (let page = Math.floor(range.start / PAGE); page * PAGE < range.end; page += 1) {
      if (!this.#cache.has(page) && this.#fill(page, stalling, keepsZeros)) break;
    }
    return Promise.resolve();
  }
}

describe("findFault", () => {
  it("finds nothing in a kernel that does it right", async () => {
    const kernel = new ModelKernel("none");
    assert.equal(await findFault(kernel, kernel), undefined);
    assert.equal(kernel.kills, 2);
  });

  const found: readonly (readonly [Defect, RegExp])[] = [
    ["zeros to the reader", /came back as wrong data/],
    ["zeros kept after an error", /came back as wrong data|left wrong data/],
    ["zeros kept after a kill", /killed reader left wrong data/],
    ["the error is swallowed", /not passed on/],
    ["an end instead of an error", /came back as wrong data/],
    ["the error stays", /left wrong data/],
  ];
  for (const [defect, fault] of found) {
    it(`finds: ${defect}`, async () => {
      const kernel = new ModelKernel(defect);
      assert.match((await findFault(kernel, kernel)) ?? "nothing found", fault);
    });
  }
});

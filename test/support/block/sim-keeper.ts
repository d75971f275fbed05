/** What the keeper believes: ranges that it may pread at any time. */
import { DaemonError } from "../../../src/base/errors.ts";
import { RangeSet } from "../../../src/base/range-set.ts";
import type { ByteRange } from "../../../src/base/range-set.ts";

export class SimKeeper {
  readonly present = new Map<string, RangeSet>();
  readonly drops: { readonly layerId: string; readonly ranges: readonly ByteRange[] }[] = [];
  isAway = false;
  /** Called while a drop is under way. */
  onDrop: () => Promise<void> | void = () => undefined;

  believe(layerId: string, ranges: readonly ByteRange[]): void {
    const set = this.present.get(layerId) ?? new RangeSet();
    this.present.set(layerId, set);
    for (const range of ranges) set.add(range);
  }

  readonly drop = async (layerId: string, ranges: readonly ByteRange[]): Promise<void> => {
    if (this.isAway) throw new DaemonError("unavailable", "the keeper is away");
    this.drops.push({ layerId, ranges });
    await this.onDrop();
    for (const range of ranges) this.present.get(layerId)?.remove(range);
  };

  /** Throws when a hole would be made under a range that is believed. */
  readonly assertMayPunch = (path: string, offset: number, length: number): void => {
    const match = /\/decoded\/([0-9a-f]{64})$/.exec(path);
    const set = this.present.get(match?.[1] ?? "");
    const missing = set?.missing({ start: offset, end: offset + length }) ?? [];
    const unbelieved = missing.reduce((sum, { start, end }) => sum + end - start, 0);
    if (set !== undefined && unbelieved < length) {
      throw new Error(`hole at ${offset}+${length} of ${path} under a range that is believed`);
    }
  };
}

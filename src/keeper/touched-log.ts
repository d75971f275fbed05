/** Which parts of the layers were read since the last report: for the order of eviction. */
import type { ByteRange } from "../base/range-set.ts";

/** Reads are noted to this precision, a fraction of a block. */
export const TOUCH_UNIT_BYTES = 256 * 1024;
/** Units of all layers together between two reports (16 GiB); what is beyond is not reported. */
export const TOUCHED_UNITS_MAX = 65_536;

export class TouchedLog {
  readonly #layers = new Map<string, Set<number>>();
  #units = 0;

  note(layer: string, start: number, end: number): void {
    let units = this.#layers.get(layer);
    if (units === undefined) {
      units = new Set();
      this.#layers.set(layer, units);
    }
    const last = Math.floor((end - 1) / TOUCH_UNIT_BYTES);
    for (let unit = Math.floor(start / TOUCH_UNIT_BYTES); unit <= last; unit += 1) {
      if (units.has(unit)) continue;
      if (this.#units >= TOUCHED_UNITS_MAX) return;
      units.add(unit);
      this.#units += 1;
    }
  }

  /** Hands everything over and starts anew. */
  take(): { layer: string; ranges: ByteRange[] }[] {
    const report = [...this.#layers].map(([layer, units]) => ({ layer, ranges: merge(units) }));
    this.#layers.clear();
    this.#units = 0;
    return report;
  }
}

function merge(units: ReadonlySet<number>): ByteRange[] {
  const ranges: { start: number; end: number }[] = [];
  for (const unit of [...units].sort((a, b) => a - b)) {
    const start = unit * TOUCH_UNIT_BYTES;
    const last = ranges.at(-1);
    if (last?.end === start) last.end = start + TOUCH_UNIT_BYTES;
    else ranges.push({ start, end: start + TOUCH_UNIT_BYTES });
  }
  return ranges;
}

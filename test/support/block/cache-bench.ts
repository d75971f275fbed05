/** A disk cache over simulated files, keeper and clock. */
import { DiskCache } from "../../../src/cache/index.ts";
import type { CachedLayer, DiskCacheOptions } from "../../../src/cache/index.ts";
import { FakeClock } from "./fake-clock.ts";
import { listLogger } from "./resolver.ts";
import type { SampleLayer } from "./sample-layer.ts";
import { SimFiles } from "./sim-files.ts";
import { SimKeeper } from "./sim-keeper.ts";

export const ROOT = "/cache";

export class CacheBench {
  readonly clock = new FakeClock();
  readonly files = new SimFiles();
  readonly keeper = new SimKeeper();
  readonly events: string[] = [];
  bootId = "boot-1";
  options: Partial<DiskCacheOptions> = { quotaBytes: 1024 ** 3, reserveBytes: 0 };

  constructor(options: Partial<DiskCacheOptions> = {}) {
    this.options = { ...this.options, ...options };
    this.files.onPunch = this.keeper.assertMayPunch;
  }

  async open(): Promise<DiskCache> {
    const { clock, files, bootId, events, keeper } = this;
    const logger = listLogger(events);
    const dependencies = { clock, logger, files, bootId, drop: keeper.drop };
    return DiskCache.open(ROOT, dependencies, this.options);
  }

  /** Writes the block's right bytes, as the read path would, and tells the keeper. */
  async write(layer: CachedLayer, sample: SampleLayer, index: number): Promise<boolean> {
    const isWritten = await layer.write(index, tarOf(sample, index));
    if (isWritten && layer.hold(index, index)) {
      const { tarOffset, tarLength } = sample.table.at(index);
      this.keeper.believe(sample.id, [{ start: tarOffset, end: tarOffset + tarLength }]);
    }
    return isWritten;
  }
}

export function tarOf(sample: SampleLayer, index: number): Buffer {
  const { tarOffset, tarLength } = sample.table.at(index);
  return sample.tar.subarray(tarOffset, tarOffset + tarLength);
}

/** Disk usage of local snapshots: counted a few at a time, once for a committed one. */
import type { Logger } from "../base/log.ts";
import { Semaphore } from "../base/semaphore.ts";
import { SingleFlight } from "../base/single-flight.ts";
import { USAGE_SCAN_QUEUE_MAX, USAGE_SCANS_MAX } from "./limits.ts";
import type { Store } from "./store.ts";
import { diskUsage } from "./tree-scan.ts";
import type { SnapshotRecord, SnapshotUsage } from "./snapshot-info.ts";

export class UsageCounter {
  readonly #log: Logger;
  readonly #scans = new Semaphore(USAGE_SCANS_MAX, { queueMax: USAGE_SCAN_QUEUE_MAX });
  readonly #flights = new SingleFlight<string, SnapshotUsage>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Own bytes and inodes, without the parents'. */
  async usage(
    store: Store,
    record: SnapshotRecord,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<SnapshotUsage> {
    if (record.usage !== undefined) return record.usage;
    // A view owns nothing. Source: containerd's overlay snapshotter.
    if (record.kind === "view") return { bytes: 0, inodes: 0 };
    const path = store.folders.upper(record.id);
    return this.#flights.run(
      path,
      (inner) => this.#scans.run({ signal: inner }, () => this.#count(store, record, inner)),
      { signal },
    );
  }

  /**
   * Counts a snapshot that was just committed: after Commit has answered, because that runs inside
   * containerd's database transaction. Who asks meanwhile waits for the same count.
   */
  countLater(
    store: Store,
    record: SnapshotRecord,
    { signal }: { readonly signal: AbortSignal },
  ): void {
    this.usage(store, record, { signal }).catch((error: unknown) => {
      // Usage counts again when it is asked.
      if (!signal.aborted) this.#log.debug("usage-not-counted", { key: record.name, err: error });
    });
  }

  async #count(store: Store, record: SnapshotRecord, signal: AbortSignal): Promise<SnapshotUsage> {
    const usage = await diskUsage(store.folders.upper(record.id), { signal });
    if (record.kind !== "committed") return usage;
    await store.metastore.transact((transaction) => {
      const current = transaction.get(record.name);
      if (current?.id === record.id) transaction.put({ ...current, usage });
    });
    return usage;
  }
}

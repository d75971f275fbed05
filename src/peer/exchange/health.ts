/** What is remembered of the peers that were asked: whom not to ask, and whom to ask last. */
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { ExchangeCounters } from "./counters.ts";
import { CONVICTION_MS, COOLDOWN_MS, COOLDOWN_MS_MAX, COUNTED_PEERS_MAX } from "./limits.ts";

/** Why a peer is complained about. `bad-block` convicts it; the others only send it to the end. */
export type Trouble = "refused" | "reset" | "silent" | "bad-block";

export interface HealthOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly counters: ExchangeCounters;
  readonly onConvicted?: ((peerId: string) => void) | undefined;
  /** For the tree's manager. */
  readonly onTrouble?: ((image: string, peerId: string, trouble: Trouble) => void) | undefined;
}

interface Record {
  convictedUntilMs: number;
  coolsUntilMs: number;
  /** Failures in a row. */
  failures: number;
}

export class PeerHealth {
  readonly #options: HealthOptions;
  readonly #records = new Map<string, Record>();

  constructor(options: HealthOptions) {
    this.#options = options;
  }

  isConvicted(peerId: string): boolean {
    const record = this.#records.get(peerId);
    return record !== undefined && record.convictedUntilMs > this.#options.clock.nowMs();
  }

  /** It failed lately: to be asked after the others. */
  isCooling(peerId: string): boolean {
    const record = this.#records.get(peerId);
    return record !== undefined && record.coolsUntilMs > this.#options.clock.nowMs();
  }

  /** It has sent what was asked. */
  good(peerId: string): void {
    const record = this.#records.get(peerId);
    if (record === undefined) return;
    record.failures = 0;
    record.coolsUntilMs = 0;
  }

  failed(image: string, peerId: string, trouble: Exclude<Trouble, "bad-block">): void {
    const record = this.#record(peerId);
    const cooldownMs = Math.min(COOLDOWN_MS_MAX, COOLDOWN_MS * 2 ** Math.min(record.failures, 10));
    record.failures += 1;
    record.coolsUntilMs = this.#options.clock.nowMs() + cooldownMs;
    this.#options.counters.add(peerId, "failures");
    this.#options.onTrouble?.(image, peerId, trouble);
  }

  /** It sent a whole block with a wrong digest, or a reply that no honest member sends. */
  convict(image: string, peerId: string, reason: string): void {
    const { clock, logger, counters, onConvicted, onTrouble } = this.#options;
    const wasConvicted = this.isConvicted(peerId);
    this.#record(peerId).convictedUntilMs = clock.nowMs() + CONVICTION_MS;
    counters.add(peerId, "convictions");
    if (wasConvicted) return;
    logger.warn("peer-convicted", { peer: peerId, image, reason, forMs: CONVICTION_MS });
    onConvicted?.(peerId);
    onTrouble?.(image, peerId, "bad-block");
  }

  #record(peerId: string): Record {
    let record = this.#records.get(peerId);
    if (record === undefined) {
      record = { convictedUntilMs: 0, coolsUntilMs: 0, failures: 0 };
      this.#records.set(peerId, record);
      const [oldest] = this.#records.keys();
      if (this.#records.size > COUNTED_PEERS_MAX && oldest !== undefined) {
        this.#records.delete(oldest);
      }
    }
    return record;
  }
}

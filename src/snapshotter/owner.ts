/**
 * Whose snapshots these are. A containerd that was wiped and installed again has another UUID and
 * counts its keys from 1 again: they would collide with those of the old one.
 */
import { throwIfAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { DaemonError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { SingleFlight } from "../base/single-flight.ts";
import type { ContainerdApi } from "./containerd/client.ts";
import { CONTAINERD_IDENTITY_MS } from "./limits.ts";

interface Options {
  /** Absent: the snapshots belong to whoever calls. */
  readonly containerd: Pick<ContainerdApi, "isConnected" | "uuid"> | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** Makes the store that of this containerd. */
  readonly bind: (uuid: string) => Promise<void>;
}

export class Owner {
  readonly #options: Options;
  readonly #checks = new SingleFlight<"check", void>();
  #isChecked = false;

  constructor(options: Options) {
    this.#options = options;
  }

  /**
   * Asks containerd who it is, at first and after each loss of the connection. A containerd that
   * does not answer (it may be starting) is asked again the next time. Throws when the caller has
   * left, or when the old snapshots could not be set aside.
   */
  async check({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    const { containerd } = this.#options;
    if (containerd === undefined) return;
    // A new containerd is a new connection.
    if (this.#isChecked && containerd.isConnected) return;
    await this.#checks.run("check", (inner) => this.#ask(containerd, inner), { signal });
  }

  async #ask(containerd: Pick<ContainerdApi, "uuid">, signal: AbortSignal): Promise<void> {
    const { clock, log, bind } = this.#options;
    const limit = new AbortController();
    const stop = clock.timer(CONTAINERD_IDENTITY_MS, () => {
      limit.abort(new DaemonError("deadline-exceeded", "containerd did not say who it is"));
    });
    let uuid: string;
    try {
      uuid = await containerd.uuid({ signal: AbortSignal.any([signal, limit.signal]) });
    } catch (error) {
      throwIfAborted(signal);
      log.debug("containerd-not-identified", { err: error });
      return;
    } finally {
      stop();
    }
    await bind(uuid);
    this.#isChecked = true;
  }
}

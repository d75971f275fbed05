/**
 * Calls another role over its socket and rides out its restarts: every method of control.proto
 * is idempotent, so a call whose connection was lost is made again.
 */
import type { Clock } from "../base/clock.ts";
import { DaemonError, errorCode } from "../base/errors.ts";
import { connectControl } from "../control/index.ts";
import type { CallOptions, ControlConnection } from "../control/index.ts";

const RETRY_PAUSE_MS = 50;
/** A role that does not come back within this is reported to the caller. */
export const ROLE_AWAY_MS_MAX = 20_000;

export class RoleClient implements AsyncDisposable {
  readonly #socket: string;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  #connection: ControlConnection | undefined;
  #connecting: Promise<ControlConnection> | undefined;

  constructor(socket: string, clock: Clock) {
    this.#socket = socket;
    this.#clock = clock;
  }

  /** The caller parses the answer. */
  async call(method: string, request: object, options: CallOptions): Promise<unknown> {
    const signal = AbortSignal.any([options.signal, this.#stop.signal]);
    let awaySince: number | undefined;
    for (;;) {
      const connection = await this.#tryConnect(signal);
      if (connection !== undefined) {
        awaySince = undefined;
        try {
          return await connection.call(method, request, { ...options, signal });
        } catch (error) {
          // The role's own "unavailable" (registry down) is an answer, not a lost connection.
          if (errorCode(error) !== "unavailable" || !connection.isClosed) throw error;
        }
      }
      awaySince ??= this.#clock.nowMs();
      if (this.#clock.nowMs() - awaySince > ROLE_AWAY_MS_MAX) {
        throw new DaemonError("unavailable", `nobody answers on ${this.#socket}`);
      }
      await this.#clock.sleep(RETRY_PAUSE_MS, { signal });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new DaemonError("canceled", "client is closed"));
    await this.#connection?.[Symbol.asyncDispose]();
  }

  async #tryConnect(signal: AbortSignal): Promise<ControlConnection | undefined> {
    if (this.#connection !== undefined && !this.#connection.isClosed) return this.#connection;
    this.#connecting ??= connectControl(this.#socket, {}, { signal: this.#stop.signal }).finally(
      () => {
        this.#connecting = undefined;
      },
    );
    try {
      this.#connection = await this.#connecting;
      return this.#connection;
    } catch (error) {
      if (signal.aborted) throw error;
      return undefined;
    }
  }
}

/** A stream socket between two simulated processes: bytes in order, in pieces, at some turn. */
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import type { Owner, Scheduler } from "./scheduler.ts";

class SimSocket extends EventEmitter {
  readonly #owner: Owner;
  readonly #scheduler: Scheduler;
  readonly writableLength = 0;
  destroyed = false;
  peer: SimSocket | undefined;
  #incoming: Buffer[] = [];
  #isReading = false;

  constructor(owner: Owner, scheduler: Scheduler) {
    super();
    this.#owner = owner;
    this.#scheduler = scheduler;
  }

  write(bytes: Buffer): boolean {
    if (!this.destroyed && !this.#owner.isDead) this.peer?.push(bytes);
    return true;
  }

  destroySoon(): void {
    this.destroy();
  }

  /** As the kernel does it when a process dies: what was sent is still delivered, then the end. */
  destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    void this.#end();
    void this.peer?.endSoon();
  }

  push(bytes: Buffer): void {
    this.#incoming.push(bytes);
    if (!this.#isReading) void this.#read();
  }

  async endSoon(): Promise<void> {
    while (this.#isReading) await this.#scheduler.turn(this.#owner);
    await this.#scheduler.turn(this.#owner);
    if (this.destroyed) return;
    this.destroyed = true;
    await this.#end();
  }

  async #read(): Promise<void> {
    this.#isReading = true;
    while (this.#incoming.length > 0) {
      await this.#scheduler.turn(this.#owner);
      // Several messages may come in one piece, or one in several.
      const all = Buffer.concat(this.#incoming);
      const { random } = this.#scheduler;
      const length = random.oneIn(3) ? 1 + random.below(all.length) : all.length;
      this.#incoming = length < all.length ? [all.subarray(length)] : [];
      if (!this.destroyed) this.emit("data", all.subarray(0, length));
    }
    this.#isReading = false;
  }

  async #end(): Promise<void> {
    await this.#scheduler.turn(this.#owner);
    this.emit("close");
  }
}

export function simWire(scheduler: Scheduler, a: Owner, b: Owner): readonly [Socket, Socket] {
  const [left, right] = [new SimSocket(a, scheduler), new SimSocket(b, scheduler)];
  left.peer = right;
  right.peer = left;
  // The part of a socket that a control connection uses.
  return [left as unknown as Socket, right as unknown as Socket];
}

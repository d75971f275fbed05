/**
 * Who answers. A member that is asked and says nothing for a while is silent: it manages nothing
 * and is asked nothing until it is heard again. Membership finds the same after seconds; a tree's
 * manager has to be replaced within a fraction of one.
 */
import type { Random } from "../../base/random.ts";
import { CHECKS_MAX, SILENT_MAX } from "./limits.ts";
import type { Contact, PongMessage } from "./messages.ts";

/** What a check is for: what to do when it ends. */
export type CheckReason = "manager" | "deputy" | "predecessor" | "rival" | "member";

export interface Verdict {
  readonly contact: Contact;
  readonly image: string;
  readonly reason: CheckReason;
  /** Undefined: silent. */
  readonly pong?: PongMessage;
}

export interface Ping {
  readonly to: Contact;
  readonly image: string;
  readonly nonce: number;
}

interface Check {
  readonly contact: Contact;
  readonly image: string;
  readonly reason: CheckReason;
  readonly nonce: number;
  endsMs: number;
  readonly everyMs: number;
  nextMs: number;
}

/** For how long a silent member is left alone; then it may be tried again. */
const SILENT_MS = 10_000;
/** Of packets a tenth may be lost: both ways and four times, less than one check in 500 errs. */
const PINGS = 4;
/** A tick that comes this late shows that the node did nothing meanwhile. */
const PAUSE_MS = 20;

export class Reachability {
  readonly #random: Random;
  readonly #checks = new Map<string, Check>();
  /** By boot: until when. In the order of falling silent. */
  readonly #silent = new Map<string, number>();
  #nextMs = Infinity;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Silent members; when it changes, ranks do. */
  get silentCount(): number {
    return this.#silent.size;
  }

  get nextMs(): number {
    return this.#nextMs;
  }

  isSilent(boot: string): boolean {
    return this.#silent.has(boot);
  }

  /** True when the member was silent until now. */
  heard(boot: string): boolean {
    return this.#silent.size > 0 && this.#silent.delete(boot);
  }

  /** Begins to ping, unless that is under way. False: too many are pinged at once. */
  check(contact: Contact, { image, reason, withinMs }: CheckRequest, nowMs: number): boolean {
    const key = `${reason} ${image} ${contact.id}`;
    const running = this.#checks.get(key);
    if (running?.contact.boot === contact.boot) return true;
    if (this.#checks.size >= CHECKS_MAX) return false;
    const nonce = Math.floor(this.#random.next() * 2 ** 32);
    const [endsMs, everyMs] = [nowMs + withinMs, withinMs / PINGS];
    this.#checks.set(key, { contact, image, reason, nonce, endsMs, everyMs, nextMs: nowMs });
    this.#nextMs = Math.min(this.#nextMs, nowMs);
    return true;
  }

  pong(pong: PongMessage, boot: string): readonly Verdict[] {
    const ended: Verdict[] = [];
    for (const [key, { contact, image, reason, nonce }] of this.#checks) {
      if (nonce !== pong.nonce || contact.boot !== boot || image !== pong.image) continue;
      this.#checks.delete(key);
      ended.push({ contact, image, reason, pong });
    }
    return ended;
  }

  tick(nowMs: number): { readonly pings: readonly Ping[]; readonly verdicts: readonly Verdict[] } {
    const pings: Ping[] = [];
    const verdicts: Verdict[] = [];
    if (nowMs < this.#nextMs) return { pings, verdicts };
    // A node that was paused has not read the answers yet: nobody is silent because of that.
    const lateMs = nowMs - this.#nextMs;
    const pausedMs = lateMs > PAUSE_MS ? lateMs : 0;
    let next = Infinity;
    for (const [key, check] of this.#checks) {
      check.endsMs += pausedMs;
      const { contact, image, reason, nonce } = check;
      if (nowMs >= check.endsMs) {
        this.#checks.delete(key);
        this.#fallSilent(contact.boot, nowMs);
        verdicts.push({ contact, image, reason });
        continue;
      }
      if (nowMs >= check.nextMs) {
        pings.push({ to: contact, image, nonce });
        check.nextMs = nowMs + check.everyMs;
      }
      next = Math.min(next, check.nextMs, check.endsMs);
    }
    for (const [boot, untilMs] of this.#silent) {
      if (untilMs > nowMs) {
        next = Math.min(next, untilMs);
        break;
      }
      this.#silent.delete(boot);
    }
    this.#nextMs = next;
    return { pings, verdicts };
  }

  #fallSilent(boot: string, nowMs: number): void {
    this.#silent.delete(boot);
    this.#silent.set(boot, nowMs + SILENT_MS);
    const [oldest] = this.#silent.keys();
    if (this.#silent.size > SILENT_MAX && oldest !== undefined) this.#silent.delete(oldest);
  }
}

export interface CheckRequest {
  readonly image: string;
  readonly reason: CheckReason;
  readonly withinMs: number;
}

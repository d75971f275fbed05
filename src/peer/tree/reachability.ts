/**
 * Who answers. A member that is asked and says nothing for a while is silent: it manages nothing
 * and is asked nothing until it is heard again. Membership finds the same after seconds; a tree's
 * manager has to be replaced within a fraction of one.
 */
import type { Random } from "../../base/random.ts";
import { CHECKS_MAX, SILENT_MAX } from "./limits.ts";
import type { Contact, PongMessage } from "./messages.ts";

/**
 * What a check is for: what to do when it ends. Who is silent for `root`'s short time is asked on.
 */
export type CheckReason = "manager" | "deputy" | "predecessor" | "rival" | "member" | "root";

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
  readonly startedMs: number;
  endsMs: number;
  readonly everyMs: number;
  nextMs: number;
}

interface Silence {
  readonly sinceMs: number;
  readonly untilMs: number;
}

/** For how long a silent member is left alone; then it may be tried again. */
const SILENT_MS = 10_000;
/** Of packets a tenth may be lost: both ways and four times, less than one check in 500 errs. */
const PINGS = 4;
/**
 * Nobody is silent before so many times what answers take now: where processes wait for a processor
 * all are slow.
 */
const ANSWER_TIMES = 4;
/** After so long half of the longest answer is forgotten. */
const ANSWER_HALF_LIFE_MS = 10_000;
/** What an answer is taken to last at most: one member that came back late is no measure. */
const ANSWER_MS_MAX = 1000;
/** A tick that comes this late shows that the node did nothing meanwhile. */
const PAUSE_MS = 20;

export class Reachability {
  readonly #random: Random;
  readonly #checks = new Map<string, Check>();
  /** By boot. In the order of falling silent. */
  readonly #silent = new Map<string, Silence>();
  #nextMs = Infinity;
  /** The longest answer of late. */
  #answer = { ms: 0, atMs: 0 };

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
  heard(boot: string, nowMs: number): boolean {
    const silence = this.#silent.get(boot);
    if (silence === undefined) return false;
    // It was only slow, by so much.
    this.#noteAnswer(nowMs - silence.sinceMs, nowMs);
    return this.#silent.delete(boot);
  }

  /** Begins to ping, unless that is under way. False: too many are pinged at once. */
  check(contact: Contact, { image, reason, withinMs }: CheckRequest, nowMs: number): boolean {
    const key = `${reason} ${image} ${contact.id}`;
    const running = this.#checks.get(key);
    if (running?.contact.boot === contact.boot) return true;
    if (this.#checks.size >= CHECKS_MAX) return false;
    const nonce = Math.floor(this.#random.next() * 2 ** 32);
    const patienceMs = Math.max(withinMs, ANSWER_TIMES * this.#answerMs(nowMs));
    const [endsMs, everyMs] = [nowMs + patienceMs, patienceMs / PINGS];
    const times = { startedMs: nowMs, endsMs, everyMs, nextMs: nowMs };
    this.#checks.set(key, { contact, image, reason, nonce, ...times });
    this.#nextMs = Math.min(this.#nextMs, nowMs);
    return true;
  }

  pong(pong: PongMessage, boot: string, nowMs: number): readonly Verdict[] {
    const ended: Verdict[] = [];
    for (const [key, { contact, image, reason, nonce, startedMs }] of this.#checks) {
      if (nonce !== pong.nonce || contact.boot !== boot || image !== pong.image) continue;
      this.#noteAnswer(nowMs - startedMs, nowMs);
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
        if (reason !== "root") this.#fallSilent(contact.boot, check.startedMs, nowMs);
        verdicts.push({ contact, image, reason });
        continue;
      }
      if (nowMs >= check.nextMs) {
        pings.push({ to: contact, image, nonce });
        check.nextMs = nowMs + check.everyMs;
      }
      next = Math.min(next, check.nextMs, check.endsMs);
    }
    for (const [boot, { untilMs }] of this.#silent) {
      if (untilMs > nowMs) {
        next = Math.min(next, untilMs);
        break;
      }
      this.#silent.delete(boot);
    }
    this.#nextMs = next;
    return { pings, verdicts };
  }

  #answerMs(nowMs: number): number {
    const { ms, atMs } = this.#answer;
    return ms * 2 ** (-(nowMs - atMs) / ANSWER_HALF_LIFE_MS);
  }

  #noteAnswer(ms: number, nowMs: number): void {
    const longest = Math.max(Math.min(ANSWER_MS_MAX, ms), this.#answerMs(nowMs));
    this.#answer = { ms: longest, atMs: nowMs };
  }

  #fallSilent(boot: string, sinceMs: number, nowMs: number): void {
    this.#silent.delete(boot);
    this.#silent.set(boot, { sinceMs, untilMs: nowMs + SILENT_MS });
    const [oldest] = this.#silent.keys();
    if (this.#silent.size > SILENT_MAX && oldest !== undefined) this.#silent.delete(oldest);
  }
}

export interface CheckRequest {
  readonly image: string;
  readonly reason: CheckReason;
  readonly withinMs: number;
}

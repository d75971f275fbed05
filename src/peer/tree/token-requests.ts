/**
 * Members other than the root ask before they read the registry: the manager has a small budget for
 * all of them. Source: design 7; a slow root would otherwise make N members fetch N working sets.
 */
import type { TreeContext } from "./context.ts";
import { TOKEN_BYTES_MAX, TOKENS_WAITING_MAX } from "./limits.ts";
import type { Contact, TokenAnswerMessage } from "./messages.ts";
import { TokenBucket } from "./token-bucket.ts";

interface Asking {
  readonly image: string;
  readonly id: number;
  readonly bytes: number;
  sends: number;
  nextMs: number;
}

interface Asker {
  readonly manager: Contact | undefined;
  readonly position: { readonly isRoot: boolean } | undefined;
}

export interface TokenRequest {
  readonly image: string;
  readonly bytes: number;
  readonly id: number;
}

/** A manager that does not answer so many times is away, and the own budget has to do. */
const SENDS_MAX = 4;
/** A blocked reader waits meanwhile: far above a round trip, far below what a reader notices. */
const PATIENCE_MS = 30;
/** A tick that comes this late shows that answers wait to be read. */
const PAUSE_MS = 20;
/** The own budget is this share of the manager's: every member may have to use its own at once. */
const OWN_SHARE = 0.25;
/** When to ask again after a refusal that names no time. */
const RETRY_MS = 200;

export class TokenRequests {
  readonly #context: TreeContext;
  readonly #waiting = new Map<number, Asking>();
  /** For while no manager answers: reads have to end, if slowly. */
  #own: TokenBucket | undefined;
  #nextMs = Infinity;
  #nonce: number;

  constructor(context: TreeContext) {
    this.#context = context;
    this.#nonce = Math.floor(context.random.next() * 2 ** 32);
  }

  get nextMs(): number {
    return this.#nextMs;
  }

  ask({ image, bytes, id }: TokenRequest, asker: Asker | undefined, nowMs: number): void {
    if (asker?.position?.isRoot === true) {
      this.#answer(image, id, 0);
      return;
    }
    const isTooMuch = !(bytes >= 0 && bytes <= TOKEN_BYTES_MAX);
    if (asker === undefined || isTooMuch || this.#waiting.size >= TOKENS_WAITING_MAX) {
      this.#answer(image, id, RETRY_MS);
      return;
    }
    this.#nonce = (this.#nonce + 1) >>> 0;
    const asking = { image, id, bytes, sends: 0, nextMs: nowMs };
    this.#waiting.set(this.#nonce, asking);
    this.#send(this.#nonce, asking, asker, nowMs);
    this.#nextMs = Math.min(this.#nextMs, asking.nextMs);
  }

  onAnswer({ nonce, image, granted, retryAfterMs }: TokenAnswerMessage): void {
    const asking = this.#waiting.get(nonce);
    if (asking?.image !== image) return;
    this.#waiting.delete(nonce);
    this.#answer(image, asking.id, granted ? 0 : Math.max(1, retryAfterMs));
  }

  tick(nowMs: number, askerOf: (image: string) => Asker | undefined): void {
    if (nowMs < this.#nextMs) return;
    const lateMs = nowMs - this.#nextMs;
    let next = Infinity;
    for (const [nonce, asking] of this.#waiting) {
      if (lateMs > PAUSE_MS) asking.nextMs += lateMs;
      if (asking.nextMs <= nowMs) {
        const asker = askerOf(asking.image);
        if (asker === undefined || asking.sends >= SENDS_MAX) {
          this.#waiting.delete(nonce);
          const { image, id, bytes } = asking;
          this.#answer(image, id, asker === undefined ? RETRY_MS : this.#takeOwn(bytes, nowMs));
          continue;
        }
        if (asker.position?.isRoot === true) {
          this.#waiting.delete(nonce);
          this.#answer(asking.image, asking.id, 0);
          continue;
        }
        this.#send(nonce, asking, asker, nowMs);
      }
      next = Math.min(next, asking.nextMs);
    }
    this.#nextMs = next;
  }

  #send(nonce: number, asking: Asking, { manager }: Asker, nowMs: number): void {
    const { image, bytes } = asking;
    asking.sends += 1;
    asking.nextMs = nowMs + PATIENCE_MS;
    if (manager !== undefined) this.#context.send(manager, { kind: "token", image, nonce, bytes });
  }

  #takeOwn(bytes: number, nowMs: number): number {
    const { registryBytesPerSecond: perSecond, registryBurstBytes: burst } = this.#context.config;
    this.#own ??= new TokenBucket({
      perSecond: OWN_SHARE * perSecond,
      burst: OWN_SHARE * burst,
      nowMs,
    });
    return this.#own.take(bytes, nowMs);
  }

  #answer(image: string, id: number, retryAfterMs: number): void {
    const granted = retryAfterMs === 0;
    this.#context.effect({ kind: "token-answer", image, id, granted, retryAfterMs });
  }
}

/**
 * A front before the lab's registry that is slow, silent for a while, or refuses a part of what is
 * asked. Only our program is treated so: containerd's own requests pass.
 */
import { once } from "node:events";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Lab } from "./lab.ts";
import { closeServer, listenOnLoopback, requestUpstream } from "./loopback.ts";

const OUR_AGENT = "faasnet-snapshotter";
/** Pieces in which bytes are paced; small, so that all connections advance together. */
const PIECE_BYTES = 16 * 1024;

export interface Impairment {
  /** Of all bodies together. */
  readonly bytesPerSecond?: number;
  /** After so many bytes of bodies nothing at all is sent for this long, once. */
  readonly stall?: { readonly afterBytes: number; readonly ms: number };
  /** This share of the requests is answered 429 or 503, one in six with `Retry-After: 1`. */
  readonly refuse?: { readonly share: number; readonly seed: number };
}

export interface ImpairedRequest {
  readonly atMs: number;
  readonly path: string;
  readonly range: string | undefined;
  readonly status: number;
}

const REFUSALS: readonly { readonly status: number; readonly retryAfter?: string }[] = [
  { status: 429 },
  { status: 503 },
  { status: 429, retryAfter: "1" },
  { status: 503 },
  { status: 429 },
  { status: 503 },
];

export class ImpairedRegistry implements AsyncDisposable {
  /** host:port, as in image references. */
  readonly address: string;
  readonly #upstream: URL;
  readonly #server: Server;
  #impairment: Impairment = {};
  #random: () => number = () => 1;
  #refusals = 0;
  #nextByteAtMs = 0;
  #silentUntilMs = 0;
  #hasStalled = false;
  #sentBytes = 0;
  #requests: ImpairedRequest[] = [];

  private constructor(server: Server, port: number, upstream: string) {
    this.#server = server;
    this.address = `127.0.0.1:${port}`;
    this.#upstream = new URL(`http://${upstream}`);
    server.on("request", (incoming: IncomingMessage, answer: ServerResponse) => {
      this.#answer(incoming, answer).catch(() => answer.destroy());
    });
  }

  static async start(lab: Lab, upstream: string): Promise<ImpairedRegistry> {
    const { server, port } = await listenOnLoopback();
    return lab.use(new ImpairedRegistry(server, port, upstream));
  }

  reference(repository: string): string {
    return `${this.address}/${repository}:1`;
  }

  /** From the next request on; forgets the requests so far. */
  impair(impairment: Impairment): void {
    this.#impairment = impairment;
    this.#random = seeded(impairment.refuse?.seed ?? 0);
    this.#refusals = 0;
    this.#hasStalled = false;
    this.#sentBytes = 0;
    this.#requests = [];
  }

  /** Our program's, since the last `impair`. */
  get requests(): readonly ImpairedRequest[] {
    return this.#requests;
  }

  /** Bytes of bodies sent to our program since the last `impair`. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  get hasStalled(): boolean {
    return this.#hasStalled;
  }

  async #answer(incoming: IncomingMessage, answer: ServerResponse): Promise<void> {
    const isOurs = incoming.headers["user-agent"] === OUR_AGENT;
    if (isOurs) await this.#untilAudible();
    const refusal = isOurs ? this.#refusal() : undefined;
    const note = (status: number): void => {
      if (!isOurs) return;
      const { url: path = "", headers } = incoming;
      this.#requests.push({ atMs: performance.now(), path, range: headers.range, status });
    };
    if (refusal !== undefined) {
      note(refusal.status);
      const { retryAfter } = refusal;
      answer.writeHead(
        refusal.status,
        retryAfter === undefined ? {} : { "retry-after": retryAfter },
      );
      answer.end();
      return;
    }
    const upstream = requestUpstream(this.#upstream, incoming);
    answer.once("close", () => upstream.destroy());
    incoming.pipe(upstream);
    const [response] = (await once(upstream, "response")) as [IncomingMessage];
    note(response.statusCode ?? 0);
    answer.writeHead(response.statusCode ?? 502, response.headers);
    if (isOurs) await this.#send(response, answer);
    else response.pipe(answer);
  }

  #refusal(): (typeof REFUSALS)[number] | undefined {
    const { refuse } = this.#impairment;
    if (refuse === undefined || this.#random() >= refuse.share) return undefined;
    this.#refusals += 1;
    return REFUSALS[this.#refusals % REFUSALS.length];
  }

  async #send(body: IncomingMessage, answer: ServerResponse): Promise<void> {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
        const piece = chunk.subarray(at, at + PIECE_BYTES);
        await this.#pace(piece.length);
        if (answer.destroyed) return;
        this.#sentBytes += piece.length;
        if (!answer.write(piece)) await drained(answer);
      }
    }
    answer.end();
  }

  async #pace(bytes: number): Promise<void> {
    const { bytesPerSecond, stall } = this.#impairment;
    if (stall !== undefined && !this.#hasStalled && this.#sentBytes >= stall.afterBytes) {
      this.#hasStalled = true;
      this.#silentUntilMs = performance.now() + stall.ms;
    }
    await this.#untilAudible();
    if (bytesPerSecond === undefined) return;
    const now = performance.now();
    this.#nextByteAtMs = Math.max(now, this.#nextByteAtMs) + (bytes / bytesPerSecond) * 1000;
    await sleep(this.#nextByteAtMs - now);
  }

  async #untilAudible(): Promise<void> {
    const waitMs = this.#silentUntilMs - performance.now();
    if (waitMs > 0) await sleep(waitMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await closeServer(this.#server);
  }
}

/** Also when the other side has gone. */
async function drained(answer: ServerResponse): Promise<void> {
  if (answer.destroyed) return;
  await new Promise<void>((resolve) => {
    const done = (): void => {
      answer.off("drain", done).off("close", done);
      resolve();
    };
    answer.on("drain", done).on("close", done);
  });
}

/** mulberry32: the same refusals for the same seed and order of requests. */
function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

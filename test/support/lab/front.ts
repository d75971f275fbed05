/**
 * A front before the lab's registry, in this process: it knows the ranges (the registry's log does
 * not show them) and can hold answers back, so that a test decides when a block arrives.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Lab } from "./lab.ts";
import { closeServer, listenOnLoopback, requestUpstream } from "./loopback.ts";

export interface FrontRequest {
  readonly method: string;
  readonly path: string;
  readonly range: { readonly start: number; readonly end: number } | undefined;
}

/** What to do with a request: pass it on, answer nothing until released, or answer a status. */
export type FrontRule = (request: FrontRequest) => "pass" | "hold" | number;

export class Front implements AsyncDisposable {
  /** host:port, as in image references. */
  readonly address: string;
  readonly #upstream: URL;
  readonly #server: Server;
  #rule: FrontRule = () => "pass";
  readonly #held = new Set<() => void>();
  readonly requests: FrontRequest[] = [];

  private constructor(server: Server, port: number, upstream: string) {
    this.#server = server;
    this.address = `127.0.0.1:${port}`;
    this.#upstream = new URL(`http://${upstream}`);
    server.on("request", (incoming: IncomingMessage, answer: ServerResponse) => {
      this.#answer(incoming, answer);
    });
  }

  static async start(lab: Lab, upstream: string): Promise<Front> {
    const { server, port } = await listenOnLoopback();
    return lab.use(new Front(server, port, upstream));
  }

  reference(repository: string): string {
    return `${this.address}/${repository}:1`;
  }

  /** From the next request on. */
  setRule(rule: FrontRule): void {
    this.#rule = rule;
  }

  /** Requests that wait for `release`. */
  get heldCount(): number {
    return this.#held.size;
  }

  /** Lets everything pass, also what is held. */
  release(): void {
    this.#rule = () => "pass";
    for (const go of this.#held) go();
    this.#held.clear();
  }

  #answer(incoming: IncomingMessage, answer: ServerResponse): void {
    const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(incoming.headers.range ?? "") ?? [];
    const asked: FrontRequest = {
      method: incoming.method ?? "",
      path: incoming.url ?? "",
      range: start === undefined ? undefined : { start: Number(start), end: Number(end) + 1 },
    };
    this.requests.push(asked);
    const verdict = this.#rule(asked);
    const go = (): void => {
      this.#pass(incoming, answer);
    };
    if (verdict === "pass") go();
    else if (verdict === "hold") {
      this.#held.add(go);
      answer.once("close", () => this.#held.delete(go));
    } else {
      answer.writeHead(verdict).end();
    }
  }

  #pass(incoming: IncomingMessage, answer: ServerResponse): void {
    const upstream = requestUpstream(this.#upstream, incoming);
    upstream.once("response", (response) => {
      answer.writeHead(response.statusCode ?? 502, response.headers);
      response.pipe(answer);
    });
    upstream.once("error", () => answer.destroy());
    answer.once("close", () => upstream.destroy());
    incoming.pipe(upstream);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#held.clear();
    await closeServer(this.#server);
  }
}

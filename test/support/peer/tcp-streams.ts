/**
 * Streams between the nodes of tests: plain TCP, one server for all nodes of a process.
 * Request: what:u8 idLength:u8 id length:u32 body; answer: length:u32 body, or the end.
 */
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { onAbort } from "../../../src/base/abort.ts";
import { DaemonError } from "../../../src/base/errors.ts";
import type { Streams } from "../../../src/peer/node/streams.ts";
import type { PeerRef } from "../../../src/peer/peer-ref.ts";

const BODY_BYTES_MAX = 8 * 1024 * 1024;
const PUSH_PULL = 1;
const PROBE = 2;

interface Receiver {
  onPushPull(records: Uint8Array): Promise<Uint8Array>;
}

export class TcpStreams implements Streams, AsyncDisposable {
  /** By id. */
  readonly nodes = new Map<string, Receiver>();
  /** Streams are refused. */
  isBlocked = false;
  calls = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  static async open(): Promise<TcpStreams> {
    const server = createServer();
    await new Promise<void>((resolve) => {
      server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, resolve);
    });
    return new TcpStreams(server);
  }

  private constructor(server: Server) {
    this.#server = server;
    server.on("connection", (socket) => {
      this.#own(socket);
      collect(socket, (request) => {
        this.#answer(socket, request).catch(() => socket.destroy());
      });
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async pushPull(
    to: PeerRef,
    records: Uint8Array,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<Uint8Array> {
    return this.#call(PUSH_PULL, to, records, signal);
  }

  async probe(to: PeerRef, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    await this.#call(PROBE, to, new Uint8Array(), signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #call(
    what: number,
    { id, address, exchangePort }: PeerRef,
    body: Uint8Array,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    this.calls += 1;
    if (this.isBlocked) throw new DaemonError("unavailable", "streams are blocked");
    const socket = connect({ host: address.host, port: exchangePort });
    this.#own(socket);
    try {
      return await new Promise<Uint8Array>((resolve, reject) => {
        onAbort(signal, reject);
        socket.on("error", reject);
        const parts: Buffer[] = [];
        socket.on("data", (part: Buffer) => parts.push(part));
        socket.on("close", () => {
          const answer = Buffer.concat(parts);
          if (answer.length >= 4 && answer.length === 4 + answer.readUInt32BE()) {
            resolve(answer.subarray(4));
          } else reject(new DaemonError("unavailable", `${id} did not answer`));
        });
        const name = Buffer.from(id);
        const head = Buffer.alloc(6 + name.length);
        head.writeUInt8(what);
        head.writeUInt8(name.length, 1);
        name.copy(head, 2);
        head.writeUInt32BE(body.length, 2 + name.length);
        socket.write(Buffer.concat([head, body]));
      });
    } finally {
      socket.destroy();
    }
  }

  async #answer(socket: Socket, { what, id, body }: Request): Promise<void> {
    const node = this.nodes.get(id);
    if (node === undefined || this.isBlocked) {
      socket.destroy();
      return;
    }
    const answer = what === PUSH_PULL ? await node.onPushPull(body) : new Uint8Array();
    const length = Buffer.alloc(4);
    length.writeUInt32BE(answer.length);
    socket.end(Buffer.concat([length, answer]));
  }

  #own(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => this.#sockets.delete(socket));
  }
}

interface Request {
  readonly what: number;
  readonly id: string;
  readonly body: Buffer;
}

function collect(socket: Socket, done: (request: Request) => void): void {
  const parts: Buffer[] = [];
  let isDone = false;
  socket.on("data", (part: Buffer) => {
    if (isDone) return;
    parts.push(part);
    const bytes = Buffer.concat(parts);
    parts.splice(0, parts.length, bytes);
    if (bytes.length < 2) return;
    const bodyAt = 6 + bytes.readUInt8(1);
    if (bytes.length < bodyAt) return;
    const bodyBytes = bytes.readUInt32BE(bodyAt - 4);
    if (bodyBytes > BODY_BYTES_MAX) {
      socket.destroy();
      return;
    }
    if (bytes.length < bodyAt + bodyBytes) return;
    isDone = true;
    done({
      what: bytes.readUInt8(0),
      id: bytes.toString("utf8", 2, bodyAt - 4),
      body: bytes.subarray(bodyAt, bodyAt + bodyBytes),
    });
  });
}

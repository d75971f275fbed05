/** The listening side of connections: bounds that hold before anybody has said who they are. */
import { createServer as createClearServer } from "node:http";
import type { RequestListener, Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { Server as TlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { DaemonError, withContext } from "../../base/errors.ts";
import type { Identity } from "../transport/identity.ts";
import { peerNameOfSocket } from "../transport/identity.ts";
import type { PeerName } from "../transport/identity-names.ts";
import {
  HANDSHAKES_MAX,
  HANDSHAKES_PER_ADDRESS_MAX,
  HANDSHAKE_MS,
  HEADER_BYTES_MAX,
  KEEP_ALIVE_MS,
  REQUEST_MS,
  SERVER_CONNECTIONS_MAX,
} from "./limits.ts";

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** Every limit of node:http that bears on a stranger. */
const HTTP_LIMITS = {
  maxHeaderSize: HEADER_BYTES_MAX,
  headersTimeout: REQUEST_MS,
  requestTimeout: REQUEST_MS,
  connectionsCheckingInterval: 1000,
  keepAliveTimeout: KEEP_ALIVE_MS,
  noDelay: true,
  insecureHTTPParser: false,
} as const;

/** A listening socket and all its connections. */
export class HttpListener implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #names = new WeakMap<object, PeerName>();
  #stopRotation: (() => void) | undefined;
  /** Connections that were refused or broke off before they had shown who they are. */
  strangers = 0;

  private constructor(server: Server) {
    this.#server = server;
    server.maxConnections = SERVER_CONNECTIONS_MAX;
    server.maxHeadersCount = 100;
    server.timeout = 0; // replies have a progress timeout of their own
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("error", () => undefined);
    });
    // Not even a 400: whoever sends what is no HTTP has no use for it.
    server.on("clientError", (_error, socket) => {
      socket.destroy();
    });
  }

  /** Mutual TLS 1.3: who has no certificate of this cluster does not get past the handshake. */
  static tls(identity: Identity, handler: RequestListener): HttpListener {
    const server = createTlsServer({
      ...HTTP_LIMITS,
      ...identity.tls,
      ALPNProtocols: ["http/1.1"],
      handshakeTimeout: HANDSHAKE_MS,
    }) as Server & TlsServer;
    const listener = new HttpListener(server);
    listener.#limitHandshakes(server);
    server.on("secureConnection", (socket: TLSSocket) => {
      try {
        listener.#names.set(socket, peerNameOfSocket(socket));
      } catch {
        listener.strangers += 1;
        socket.destroy();
      }
    });
    server.on("request", handler);
    listener.#stopRotation = identity.onRotate(() => {
      server.setSecureContext(identity.tls);
      // Sessions that an old key vouched for shall not be resumed.
      server.setTicketKeys(freshTicketKeys(identity));
    });
    return listener;
  }

  /** Without TLS; for loopback. */
  static clear(handler: RequestListener): HttpListener {
    return new HttpListener(createClearServer({ ...HTTP_LIMITS }, handler));
  }

  /** Called with the TCP connection below everything, before anything has come. */
  onConnection(callback: (socket: Socket) => void): void {
    this.#server.on("connection", callback);
  }

  /** Whose connection it is; undefined without TLS. */
  nameOf(socket: Socket): PeerName | undefined {
    return this.#names.get(socket);
  }

  /** Port 0 takes a free one. `unavailable` when the address cannot be had. */
  async listen({ host, port }: ListenAddress): Promise<ListenAddress> {
    await new Promise<void>((resolve, reject) => {
      const onError = (error: Error): void => {
        reject(withContext(error, `cannot listen on ${host} port ${port}`, "unavailable"));
      };
      this.#server.once("error", onError);
      this.#server.listen({ host, port }, () => {
        this.#server.off("error", onError);
        this.#server.on("error", () => undefined);
        resolve();
      });
    });
    const address = this.#server.address() as AddressInfo | null;
    if (address === null) throw new DaemonError("unavailable", "the listener is closed");
    return { host: address.address, port: address.port };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopRotation?.();
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** A stranger can open connections as it likes; it cannot keep members out with them. */
  #limitHandshakes(server: TlsServer): void {
    const pending = new Map<Socket, string>();
    const leave = (socket: Socket): void => {
      pending.delete(socket);
    };
    server.prependListener("connection", (socket: Socket) => {
      const address = socket.remoteAddress ?? "";
      let same = 0;
      for (const other of pending.values()) if (other === address) same += 1;
      if (pending.size >= HANDSHAKES_MAX || same >= HANDSHAKES_PER_ADDRESS_MAX) {
        this.strangers += 1;
        socket.destroy();
        return;
      }
      pending.set(socket, address);
      socket.once("close", () => {
        leave(socket);
      });
    });
    server.on("secureConnection", (socket: TLSSocket) => {
      const inner = innerSocket(socket);
      if (inner !== undefined) leave(inner);
    });
    server.on("tlsClientError", (_error, socket) => {
      this.strangers += 1;
      socket.destroy();
    });
  }
}

/** The TCP socket below TLS; node:tls keeps it as `_parent`. */
function innerSocket(socket: TLSSocket): Socket | undefined {
  return (socket as unknown as { _parent?: Socket })._parent;
}

const TICKET_KEY_BYTES = 48;

function freshTicketKeys(identity: Identity): Buffer {
  return Buffer.from(identity.randomBytes(TICKET_KEY_BYTES));
}

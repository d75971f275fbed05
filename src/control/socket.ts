/** Listening on and connecting to unix sockets for control connections. */
import { createServer, connect } from "node:net";
import type { Server } from "node:net";
import { chmod } from "node:fs/promises";
import { DaemonError, systemErrorName, withContext } from "../base/errors.ts";
import { onAbort, throwIfAborted } from "../base/abort.ts";
import { claimSocketPath } from "../base/unix-socket.ts";
import { ControlConnection } from "./connection.ts";
import type { Handlers } from "./connection.ts";

/**
 * Connects once; `unavailable` when nobody listens (also: a full backlog), `permission-denied`
 * when the socket is not ours to use.
 */
export async function connectControl(
  path: string,
  handlers: Handlers,
  options: { readonly signal: AbortSignal },
): Promise<ControlConnection> {
  throwIfAborted(options.signal);
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    const stopListening = onAbort(options.signal, (reason) => {
      socket.destroy();
      reject(reason);
    });
    socket.once("connect", () => {
      stopListening();
      socket.removeAllListeners("error");
      resolve(new ControlConnection(socket, handlers));
    });
    socket.once("error", (error) => {
      stopListening();
      const isDenied = ["EACCES", "EPERM"].includes(systemErrorName(error) ?? "");
      const code = isDenied ? "permission-denied" : "unavailable";
      reject(new DaemonError(code, `cannot connect to ${path}`, { cause: error }));
    });
  });
}

/** A listening socket, mode 0600; disposing it closes its connections and removes the file. */
export class ControlServer implements AsyncDisposable {
  readonly path: string;
  readonly #server: Server;
  readonly #connections: Set<ControlConnection>;

  private constructor(path: string, server: Server, connections: Set<ControlConnection>) {
    this.path = path;
    this.#server = server;
    this.#connections = connections;
  }

  /** Replaces a socket file that nobody listens on; `already-exists` when somebody does. */
  static async listen(
    path: string,
    handlers: Handlers,
    onConnection?: (connection: ControlConnection) => void,
  ): Promise<ControlServer> {
    await claimSocketPath(path);
    const connections = new Set<ControlConnection>();
    const server = createServer((socket) => {
      const connection = new ControlConnection(socket, handlers);
      connections.add(connection);
      void connection.closed.then(() => connections.delete(connection));
      onConnection?.(connection);
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error) => {
        reject(withContext(error, `cannot listen on ${path}`, "unavailable"));
      });
      server.listen(path, resolve);
    });
    // accept(2) fails for want of descriptors, say; the clients that wait try again.
    server.on("error", () => undefined);
    await chmod(path, 0o600);
    return new ControlServer(path, server, connections);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
    await Promise.all([...this.#connections].map((one) => one[Symbol.asyncDispose]()));
    await closed;
  }
}

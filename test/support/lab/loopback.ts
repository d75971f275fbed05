/** What the fronts before the lab's registry share: a free port, and passing a request on. */
import {
  createServer,
  request,
  type ClientRequest,
  type IncomingMessage,
  type Server,
} from "node:http";

/** A server on a free port of loopback, which its owner closes. */
export async function listenOnLoopback(): Promise<{ server: Server; port: number }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return { server, port: address.port };
}

/** Ends every connection, also those that are answered just now. */
export async function closeServer(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}

/** The same request to `upstream`; its body is still to be piped. */
export function requestUpstream(upstream: URL, incoming: IncomingMessage): ClientRequest {
  return request({
    host: upstream.hostname,
    port: upstream.port,
    path: incoming.url,
    method: incoming.method,
    headers: incoming.headers,
    agent: false,
  });
}

/** The path of a unix socket that is about to be listened on. */
import { lstat, unlink } from "node:fs/promises";
import { connect } from "node:net";
import { DaemonError, systemErrorName, withContext } from "./errors.ts";

/** sizeof(sockaddr_un.sun_path) - 1 on Linux. */
export const SOCKET_PATH_BYTES_MAX = 107;

/** `invalid-argument` when the path is too long; else as `removeStaleSocket`. */
export async function claimSocketPath(path: string): Promise<void> {
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
    throw new DaemonError(
      "invalid-argument",
      `socket path is longer than ${SOCKET_PATH_BYTES_MAX} bytes: ${path}`,
    );
  }
  await removeStaleSocket(path);
}

/**
 * Removes a socket file that nobody listens on. `already-exists` when somebody does, or when the
 * path is not a socket. Two processes must not do this at once: the daemon holds a lock.
 * Source: connect(2): ECONNREFUSED on a unix socket means that nobody listens, EAGAIN that the
 * listener's backlog is full.
 */
async function removeStaleSocket(path: string): Promise<void> {
  if (!(await isSocketFile(path))) return;
  const failure = await new Promise<Error | undefined>((resolve) => {
    const probe = connect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(undefined);
    });
    probe.once("error", resolve);
  });
  const name = failure === undefined ? undefined : systemErrorName(failure);
  if (failure === undefined || name === "EAGAIN") {
    throw new DaemonError("already-exists", `another process listens on ${path}`);
  }
  if (name === "ENOENT") return;
  if (name !== "ECONNREFUSED") {
    throw withContext(failure, `cannot tell whether ${path} is in use`, "unavailable");
  }
  await unlink(path);
}

/** False when nothing is there; throws when it is something else. */
async function isSocketFile(path: string): Promise<boolean> {
  try {
    if ((await lstat(path)).isSocket()) return true;
  } catch (error) {
    if (systemErrorName(error) === "ENOENT") return false;
    throw withContext(error, `cannot look at ${path}`, "unavailable");
  }
  throw new DaemonError("already-exists", `${path} exists and is not a socket`);
}

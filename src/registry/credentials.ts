/** Finds the login for a registry host: helpers first, then config.json, else none. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { DaemonError, systemErrorName, withContext } from "../base/errors.ts";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import { abortReason, throwIfAborted } from "../base/abort.ts";
import {
  DOCKER_HUB_KEY,
  EMPTY_DOCKER_CONFIG,
  normalizeAuthKey,
  parseDockerConfig,
  parseHelperAnswer,
} from "./docker-config.ts";
import type { Credential, DockerConfig } from "./docker-config.ts";
import { readSmallFile } from "./files.ts";
import { DOCKER_CONFIG_BYTES_MAX, HELPER_OUTPUT_BYTES_MAX, HELPER_TIMEOUT_MS } from "./limits.ts";

export interface CredentialSource {
  /** By registry host, `host[:port]`; undefined is anonymous. Never throws for a missing login. */
  lookup(host: string, options: { readonly signal: AbortSignal }): Promise<Credential | undefined>;
}

export interface DockerCredentialsOptions {
  /** The folder of config.json (`DOCKER_CONFIG`); undefined is no logins at all. */
  readonly dockerConfigDir: string | undefined;
  /** Environment of the helpers: PATH to find them, HOME, and whatever they need. */
  readonly helperEnvironment: Readonly<Record<string, string>>;
}

interface HelperDeps {
  readonly clock: Clock;
  readonly environment: Readonly<Record<string, string>>;
}

/** What helpers print on stdout when they know nothing of the host. */
const NOT_FOUND_ANSWER = "credentials not found";

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    if (systemErrorName(error) !== "ESRCH") throw error;
  }
}

/**
 * Runs `docker-credential-NAME get` with the host on stdin. Undefined when it has none.
 * Its output goes into no message: it may hold the secret.
 */
export async function runCredentialHelper(
  name: string,
  host: string,
  deps: HelperDeps,
  { signal }: { readonly signal: AbortSignal },
): Promise<Credential | undefined> {
  throwIfAborted(signal);
  const program = `docker-credential-${name}`;
  const child = spawn(program, ["get"], {
    env: { ...deps.environment },
    stdio: ["pipe", "pipe", "ignore"],
    cwd: "/",
    // Its own process group: a helper is often a script whose children must end with it.
    detached: true,
  });
  const pieces: Buffer[] = [];
  let bytes = 0;
  const timeout = new AbortController();
  const kill = (): void => {
    if (child.pid !== undefined && child.exitCode === null) killGroup(child.pid);
    child.stdout.destroy();
  };
  const cancelTimer = deps.clock.timer(HELPER_TIMEOUT_MS, () => {
    timeout.abort();
    kill();
  });
  signal.addEventListener("abort", kill, { once: true });
  child.stdout.on("data", (piece: Buffer) => {
    bytes += piece.length;
    if (bytes > HELPER_OUTPUT_BYTES_MAX) kill();
    else pieces.push(piece);
  });
  child.stdin.on("error", () => undefined);
  child.stdin.end(`${host}\n`);
  try {
    const exitCode = await new Promise<number | null>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", resolve);
    });
    if (signal.aborted) throw abortReason(signal);
    const output = Buffer.concat(pieces);
    const answer = exitCode === 0 ? parseHelperAnswer(output) : undefined;
    if (answer !== undefined) return answer;
    if (output.toString("utf8").includes(NOT_FOUND_ANSWER)) return undefined;
    const problem = timeout.signal.aborted
      ? `gave no answer within ${HELPER_TIMEOUT_MS} ms`
      : exitCode === 0
        ? "gave no usable answer"
        : `failed with exit code ${exitCode ?? "none"}`;
    throw new DaemonError("unauthenticated", `${program} ${problem} for ${host}`);
  } catch (error) {
    if (systemErrorName(error) === "ENOENT") {
      throw new DaemonError("unauthenticated", `${program} is not installed (or not in PATH)`);
    }
    throw error;
  } finally {
    cancelTimer();
    signal.removeEventListener("abort", kill);
  }
}

/** Reads config.json anew at each look-up: a login made meanwhile counts at once. */
export class DockerCredentials implements CredentialSource {
  readonly #options: DockerCredentialsOptions;
  readonly #clock: Clock;
  readonly #log: Logger;

  constructor(
    options: DockerCredentialsOptions,
    deps: { readonly clock: Clock; readonly log: Logger },
  ) {
    this.#options = options;
    this.#clock = deps.clock;
    this.#log = deps.log;
  }

  async lookup(
    host: string,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<Credential | undefined> {
    const config = await this.#readConfig();
    const key = normalizeAuthKey(host);
    const helper = config.helpers.get(key) ?? config.store;
    if (helper !== undefined) {
      const found = await this.#askHelper(helper, key, { signal });
      if (found !== undefined) return found;
    }
    return config.auths.get(key);
  }

  /** A broken helper is reported and passed over: the image may be public. */
  async #askHelper(
    helper: string,
    key: string,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<Credential | undefined> {
    const deps = { clock: this.#clock, environment: this.#options.helperEnvironment };
    const name = key === "docker.io" ? DOCKER_HUB_KEY : key;
    try {
      return await runCredentialHelper(helper, name, deps, { signal });
    } catch (error) {
      if (signal.aborted) throw abortReason(signal);
      this.#log.warn("credential-helper-failed", { helper, host: key, err: error });
      return undefined;
    }
  }

  async #readConfig(): Promise<DockerConfig> {
    const folder = this.#options.dockerConfigDir;
    if (folder === undefined) return EMPTY_DOCKER_CONFIG;
    const path = join(folder, "config.json");
    try {
      const bytes = await readSmallFile(path, DOCKER_CONFIG_BYTES_MAX);
      return parseDockerConfig(bytes);
    } catch (error) {
      if (systemErrorName(error) === "ENOENT" || systemErrorName(error) === "ENOTDIR") {
        return EMPTY_DOCKER_CONFIG;
      }
      throw withContext(error, `cannot read ${path}`, "unauthenticated");
    }
  }
}

/**
 * A private docker-registry on a free loopback port, with its own access log as the witness of what
 * was asked for, and switches to take it away.
 */
import { mkdir, open, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Lab } from "./lab.ts";
import { registryStorage } from "./paths.ts";
import { Server } from "./process.ts";

export interface AccessEntry {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly status: number;
  /** Of the body. */
  readonly bytesSent: number;
  readonly userAgent: string;
  /** The digest when the path names a blob. */
  readonly blob: string | undefined;
}

/** Source: Go's gorilla/handlers CombinedLoggingHandler, which docker-registry uses. */
const COMBINED_LOG =
  /^\S+ \S+ \S+ \[[^\]]+\] "(?<method>[A-Z]+) (?<path>\S+) HTTP\/[\d.]+" (?<status>\d+) (?<bytes>\d+|-) "[^"]*" "(?<agent>[^"]*)"/;

export function parseAccessLog(text: string): readonly AccessEntry[] {
  return text.split("\n").flatMap((line) => {
    const fields = COMBINED_LOG.exec(line)?.groups;
    if (fields === undefined) return [];
    const path = fields["path"] ?? "";
    return [
      {
        method: fields["method"] ?? "",
        path,
        status: Number(fields["status"]),
        bytesSent: fields["bytes"] === "-" ? 0 : Number(fields["bytes"]),
        userAgent: fields["agent"] ?? "",
        blob: /\/blobs\/(sha256:[0-9a-f]{64})/.exec(path)?.[1],
      },
    ];
  });
}

export interface BlobTraffic {
  /** Sent of blobs, whole or in part, to GET requests. */
  readonly bytes: number;
  readonly requests: number;
  /** Requests that were answered with a range (206). */
  readonly ranges: number;
}

export function blobTraffic(entries: readonly AccessEntry[]): BlobTraffic {
  const blobs = entries.filter((entry) => entry.method === "GET" && entry.blob !== undefined);
  return {
    bytes: blobs.reduce((sum, entry) => sum + entry.bytesSent, 0),
    requests: blobs.length,
    ranges: blobs.filter((entry) => entry.status === 206).length,
  };
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

export interface RegistryOptions {
  /** "images": what scripts/lab-images built, read-only. "empty": a storage of its own. */
  readonly storage?: "images" | "empty";
}

export class Registry implements AsyncDisposable {
  /** host:port, as in image references. */
  readonly address: string;
  readonly #logFile: string;
  readonly #configFile: string;
  readonly #env: Readonly<Record<string, string>>;
  #server: Server | undefined;

  private constructor(address: string, folder: string, env: Readonly<Record<string, string>>) {
    this.address = address;
    this.#logFile = join(folder, "log");
    this.#configFile = join(folder, "config.yml");
    this.#env = env;
  }

  static async start(lab: Lab, options: RegistryOptions = {}): Promise<Registry> {
    const folder = await lab.makeFolder("registry");
    const readOnly = (options.storage ?? "images") === "images";
    const storage = readOnly ? registryStorage : join(folder, "storage");
    await mkdir(storage, { recursive: true });
    const address = `127.0.0.1:${await freePort()}`;
    const registry = new Registry(address, folder, lab.env);
    await writeFile(
      registry.#configFile,
      [
        "version: 0.1",
        "log: { level: error }",
        "storage:",
        `  filesystem: { rootdirectory: ${storage} }`,
        "  delete: { enabled: true }",
        "  redirect: { disable: true }",
        `  maintenance: { readonly: { enabled: ${readOnly} } }`,
        `http: { addr: ${address} }`,
        "",
      ].join("\n"),
    );
    await registry.start();
    return lab.use(registry);
  }

  /** `repository:1` at this registry. */
  reference(repository: string): string {
    return `${this.address}/${repository}:1`;
  }

  async start(): Promise<void> {
    const server = await Server.start("registry", "docker-registry", ["serve", this.#configFile], {
      logFile: this.#logFile,
      env: this.#env,
      ready: () => this.#answers(),
    });
    this.#server = server;
  }

  async #answers(): Promise<boolean> {
    const signal = AbortSignal.timeout(1000);
    return fetch(`http://${this.address}/v2/`, { signal }).then(
      async (response) => {
        await response.arrayBuffer();
        return response.ok;
      },
      () => false,
    );
  }

  /** Gone: connections are refused. */
  async stop(): Promise<void> {
    await this.#server?.kill();
    this.#server = undefined;
  }

  /** Silent: connections are accepted by the kernel, and nothing is answered. */
  pause(): void {
    this.#server?.signal("SIGSTOP");
  }

  resume(): void {
    this.#server?.signal("SIGCONT");
  }

  /** A place in the access log; hand it to `entries` later. */
  async mark(): Promise<number> {
    await sleep(100); // a request is logged after its answer was sent
    const file = await open(this.#logFile, "r");
    try {
      return (await file.stat()).size;
    } finally {
      await file.close();
    }
  }

  /** What was asked for since a mark. */
  async entries(since = 0): Promise<readonly AccessEntry[]> {
    const end = await this.mark();
    const file = await open(this.#logFile, "r");
    try {
      const { buffer } = await file.read(Buffer.alloc(end - since), 0, end - since, since);
      return parseAccessLog(buffer.toString("latin1"));
    } finally {
      await file.close();
    }
  }

  async traffic(since = 0): Promise<BlobTraffic> {
    return blobTraffic(await this.entries(since));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.stop();
    this.#server = undefined;
  }
}

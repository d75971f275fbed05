/** Debian's docker-registry on a free loopback port, with its storage in a folder of the test. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { connect } from "node:net";
import { join } from "node:path";
import type { CertificateFiles } from "./certificates.ts";

export interface DockerRegistryOptions {
  readonly folder: string;
  readonly tls?: CertificateFiles;
  /** An htpasswd file. */
  readonly htpasswd?: string;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return address.port;
}

async function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.on("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => {
      resolve(false);
    });
  });
}

function configOf(port: number, options: DockerRegistryOptions): string {
  const { folder, tls, htpasswd } = options;
  return [
    "version: 0.1",
    "log: {level: error, accesslog: {disabled: true}}",
    `storage: {filesystem: {rootdirectory: ${join(folder, "storage")}}}`,
    "http:",
    `  addr: 127.0.0.1:${port}`,
    "  secret: test",
    ...(tls === undefined ? [] : [`  tls: {certificate: ${tls.certificate}, key: ${tls.key}}`]),
    ...(htpasswd === undefined ? [] : [`auth: {htpasswd: {realm: test, path: ${htpasswd}}}`]),
    "",
  ].join("\n");
}

export class DockerRegistry implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly port: number;

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
  }

  static async start(options: DockerRegistryOptions): Promise<DockerRegistry> {
    const port = await freePort();
    const config = join(options.folder, `registry-${port}.yml`);
    await writeFile(config, configOf(port, options));
    const child = spawn("docker-registry", ["serve", config], { stdio: "ignore" });
    const registry = new DockerRegistry(child, port);
    for (let attempt = 0; attempt < 200; attempt += 1) {
      if (await isListening(port)) return registry;
      if (child.exitCode !== null) break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await registry[Symbol.asyncDispose]();
    throw new Error("docker-registry did not start");
  }

  get domain(): string {
    return `127.0.0.1:${this.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGKILL");
    await ended;
  }
}

/** The program that starts and kills readers (page-reader.c): built once, spoken to by lines. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { access, mkdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { packageRoot } from "../../../src/base/package-root.ts";
import { run } from "../fuse/keeper-fixture.ts";

/** Built for each version of its source; statically linked, so that it runs anywhere. */
export async function buildPageReader(): Promise<string> {
  const built = process.env["FAASNET_PAGE_READER"];
  if (built !== undefined) return built;
  const source = join(packageRoot(), "test", "support", "kernels", "page-reader.c");
  const digest = createHash("sha256").update(await readFile(source));
  const folder = join(packageRoot(), ".lab", "bin");
  const binary = join(folder, `page-reader-${digest.digest("hex").slice(0, 12)}`);
  try {
    await access(binary);
    return binary;
  } catch {
    await mkdir(folder, { recursive: true });
    const partial = `${binary}.${process.pid}`;
    const flags = ["-static", "-O2", "-Wall", "-Wextra", "-Werror"];
    await run("gcc", [...flags, "-o", partial, source]);
    await rename(partial, binary);
    return binary;
  }
}

export const READ_KINDS = ["read", "map", "ahead"] as const;
/** read(2), a mapping that is touched, readahead(2) before read(2). */
export type ReadKind = (typeof READ_KINDS)[number];

export interface ReaderFile {
  /** On the mount. */
  readonly path: string;
  /** Holds the same bytes from `referenceOffset` on. */
  readonly referencePath: string;
  readonly referenceOffset: number;
}

export class PageReader implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string>;

  private constructor(child: ChildProcess, answers: AsyncIterator<string>) {
    this.#child = child;
    this.#answers = answers;
  }

  static async start(file: ReaderFile): Promise<PageReader> {
    const args = [file.path, file.referencePath, String(file.referenceOffset)];
    const child = spawn(await buildPageReader(), args, { stdio: ["pipe", "pipe", "inherit"] });
    child.stdin.on("error", () => undefined);
    const lines = createInterface({ input: child.stdout, terminal: false });
    return new PageReader(child, lines[Symbol.asyncIterator]());
  }

  async command(text: string): Promise<string> {
    this.#child.stdin?.write(`${text}\n`);
    const answer = await this.#answers.next();
    if (answer.done === true) throw new Error(`the page reader ended at "${text}"`);
    return answer.value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }
}

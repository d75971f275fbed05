/**
 * A shell that runs one small command after the other. Starting processes from there costs a
 * fraction of what it costs from a Node with many megabytes.
 */
import { spawn, type ChildProcessByStdio } from "node:child_process";
import type { Readable, Writable } from "node:stream";

/** Ends each command's output, before its status; no command writes such a byte. */
const END = "\x04";

export class Shell implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #ended: Promise<unknown>;
  #pending: Buffer[] = [];
  #answer: ((output: string) => void) | undefined;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(env: Readonly<Record<string, string>>) {
    this.#child = spawn("setpriv", ["--pdeathsig", "KILL", "--", "sh"], {
      env: { ...process.env, ...env },
      stdio: ["pipe", "pipe", "inherit"],
      cwd: "/",
      detached: true,
    });
    this.#ended = new Promise((resolve) => this.#child.once("close", resolve));
    this.#child.stdin.on("error", () => undefined);
    this.#child.stdout.on("data", (chunk: Buffer) => {
      this.#pending.push(chunk);
      if (chunk.at(-1) !== "\n".charCodeAt(0)) return;
      const tail = chunk.subarray(-8).toString("latin1");
      if (!tail.includes(END)) return;
      const output = Buffer.concat(this.#pending).toString("latin1");
      this.#pending = [];
      this.#answer?.(output);
    });
  }

  /** What the command writes, errors too; throws where its status is not 0. */
  async run(command: readonly string[]): Promise<string> {
    const result = this.#queue.then(async () => this.#run(command));
    this.#queue = result.catch(() => undefined);
    return result;
  }

  async #run(command: readonly string[]): Promise<string> {
    const line = command.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
    const answer = new Promise<string>((resolve) => {
      this.#answer = resolve;
    });
    this.#child.stdin.write(`${line} 2>&1 </dev/null; printf '\\004%d\\n' $?\n`);
    const output = await Promise.race([
      answer,
      this.#ended.then(() => {
        throw new Error("the shell has ended");
      }),
    ]);
    const end = output.lastIndexOf(END);
    const status = Number(output.slice(end + 1));
    const text = output.slice(0, end);
    if (status !== 0) throw new Error(`${command.join(" ")}: status ${status}\n${text}`);
    return text;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { pid } = this.#child;
    try {
      // With the command that may run.
      if (pid !== undefined) process.kill(-pid, "SIGKILL");
    } catch {
      // It ended before.
    }
    await this.#ended;
  }
}

/** A daemon module that mounts nothing, and a terminal that remembers: for tests of commands. */
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import type { DaemonError } from "../../src/base/errors.ts";
import type { CommandContext } from "../../src/cli/command-context.ts";
import type { CliConfig, DaemonApi } from "../../src/cli/daemon-api.ts";
import type { ExitCode } from "../../src/cli/exit-codes.ts";
import { runProgram } from "../../src/cli/program.ts";
import { createTerminal } from "../../src/cli/terminal.ts";
import type {
  ConfigOverrides,
  MountOptions,
  MountSummary,
  RunMountRequest,
} from "../../src/daemon/index.ts";

/** Behaves like src/daemon as far as the command line can tell; records what it is asked. */
export class FakeDaemonApi implements DaemonApi {
  readonly calls: unknown[] = [];
  /** What `runMount` does; the default mounts, and ends when the signal aborts. */
  mount: (request: RunMountRequest, options: MountOptions) => Promise<MountSummary> = async () =>
    FAKE_SUMMARY;
  /** What `loadConfig` throws, if anything. */
  configError: DaemonError | undefined;
  /** What `umount` throws, if anything. */
  umountError: DaemonError | undefined;

  async loadConfig(options: {
    readonly file?: string | undefined;
    readonly overrides?: ConfigOverrides;
  }): Promise<CliConfig> {
    this.calls.push(["loadConfig", JSON.parse(JSON.stringify(options))]);
    if (this.configError !== undefined) throw this.configError;
    const state = options.overrides?.state ?? "/run/fake";
    return {
      root: options.overrides?.root ?? "/var/lib/fake",
      state,
      address: options.overrides?.address ?? join(state, "faasnet.sock"),
    };
  }

  defaultConfigToml(): string {
    return 'root = "/var/lib/fake"\n';
  }

  imageSocketPath(state: string): string {
    return join(state, "image.sock");
  }

  async runDaemon(config: CliConfig, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    this.calls.push(["runDaemon", config]);
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      signal.addEventListener("abort", () => {
        resolve();
      });
    });
  }

  async runMount(request: RunMountRequest, options: MountOptions): Promise<MountSummary> {
    this.calls.push(["runMount", request]);
    return this.mount(request, options);
  }

  async umount(request: { readonly target: string; readonly state: string }): Promise<void> {
    this.calls.push(["umount", request]);
    if (this.umountError !== undefined) throw this.umountError;
  }
}

export const FAKE_SUMMARY: MountSummary = {
  files: 26_903,
  imageBytes: 392_000_000,
  fetchedBytes: 43_120_000,
  blocksBySource: { memory: 12, disk: 0, registry: 1041 },
};

export interface CommandResult {
  readonly exitCode: ExitCode;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly api?: DaemonApi;
  readonly signal?: AbortSignal;
  readonly isTty?: boolean;
}

/** Runs `faasnet ARGV` in this process. */
export async function runCommand(
  argv: readonly string[],
  options: RunOptions = {},
): Promise<CommandResult> {
  const out: string[] = [];
  const err: string[] = [];
  const context: CommandContext = {
    api: options.api ?? new FakeDaemonApi(),
    terminal: createTerminal(
      { write: (text) => out.push(text) },
      { write: (text) => err.push(text), isTTY: options.isTty === true, columns: 100 },
    ),
    clock: systemClock,
    signal: options.signal ?? new AbortController().signal,
  };
  const exitCode = await runProgram(argv, context, { version: "1.2.3" });
  return { exitCode, stdout: out.join(""), stderr: err.join("") };
}

/** What every command is handed, and the options that several commands share. */
import type { Command } from "commander";
import { Option } from "commander";
import type { Clock } from "../base/clock.ts";
import type { ConfigOverrides } from "../daemon/index.ts";
import type { CliConfig, DaemonApi } from "./daemon-api.ts";
import { ImageClient } from "./image-client.ts";
import type { Terminal } from "./terminal.ts";

export interface CommandContext {
  readonly api: DaemonApi;
  readonly terminal: Terminal;
  readonly clock: Clock;
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
}

/** Which configuration and so which daemon. */
export interface PlaceOptions {
  readonly config?: string;
  readonly root?: string;
  readonly state?: string;
}

export interface JsonOptions {
  readonly json?: true;
}

export interface PlatformOptions {
  readonly platform?: string;
}

export function addPlaceOptions(command: Command): Command {
  return command
    .option("--config <file>", "configuration file (default: /etc/faasnet/config.toml, if there)")
    .option("--root <dir>", "folder of maps and cached blocks (default: the configuration's)")
    .option("--state <dir>", "folder of sockets and mounts (default: the configuration's)");
}

export function jsonOption(): Option {
  return new Option("--json", "print JSON, with exact numbers, for scripts");
}

export function platformOption(): Option {
  return new Option("--platform <os/arch>", "platform of the image (default: this machine's)");
}

export async function loadPlace(
  context: CommandContext,
  options: PlaceOptions,
  overrides: ConfigOverrides = {},
): Promise<CliConfig> {
  return context.api.loadConfig({
    file: options.config,
    overrides: { root: options.root, state: options.state, ...overrides },
  });
}

/** Connects to the image service of the daemon that the options name. */
export async function connectDaemon(
  context: CommandContext,
  options: PlaceOptions,
): Promise<ImageClient> {
  const { state } = await loadPlace(context, options);
  const { signal } = context;
  return ImageClient.connect(context.api.imageSocketPath(state), { signal });
}

export function printJson(context: CommandContext, value: unknown): void {
  context.terminal.print(JSON.stringify(value, undefined, 2));
}

/** Examples below a command's help, one a line. */
export function addExamples(command: Command, examples: readonly string[]): Command {
  const lines = examples.map((example) => `  $ ${example}`).join("\n");
  return command.addHelpText("after", `\nExamples:\n${lines}`);
}

/** Adds a sub-command with its place options and examples. */
export function addCommand(
  parent: Command,
  usage: string,
  text: { readonly description: string; readonly examples: readonly string[] },
): Command {
  const command = parent.command(usage).description(text.description);
  return addExamples(addPlaceOptions(command), text.examples);
}

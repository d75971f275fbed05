/** The command line as a function: arguments in, exit code out; it never ends the process. */
import { Command, CommanderError } from "commander";
import { showError } from "./cli-error.ts";
import type { CommandContext } from "./command-context.ts";
import { addCacheCommands } from "./commands/cache-commands.ts";
import { addConfigCommands } from "./commands/config-commands.ts";
import { addDaemonCommand } from "./commands/daemon-command.ts";
import { addFetchCommand, addInspectCommand } from "./commands/image-commands.ts";
import { addMountCommand, addUmountCommand } from "./commands/mount-command.ts";
import { addPeersCommand } from "./commands/peers-command.ts";
import { addStatusCommand } from "./commands/status-command.ts";
import { addTreeCommand } from "./commands/tree-command.ts";
import { EXIT } from "./exit-codes.ts";
import type { ExitCode } from "./exit-codes.ts";

const EXIT_CODE_HELP = `
Exit codes:
  0  done
  1  failed
  2  the command line or the configuration is wrong
  3  not found (image, mount, file)
  4  no daemon answers
  5  not allowed (not root, or the registry refused)
  130  interrupted`;

export interface ProgramInfo {
  readonly version: string;
}

function buildProgram(context: CommandContext, info: ProgramInfo): Command {
  const program = new Command("faasnet")
    .description(
      "Starts containers before their images are downloaded: a snapshotter for containerd that " +
        "fetches only the blocks that are read.",
    )
    .version(info.version, "--version", "print the version")
    .helpOption("-h, --help", "show this help")
    .showHelpAfterError("(add --help for the usage)")
    .addHelpText("after", EXIT_CODE_HELP);
  addDaemonCommand(program, context);
  addMountCommand(program, context);
  addUmountCommand(program, context);
  addInspectCommand(program, context);
  addFetchCommand(program, context);
  addStatusCommand(program, context);
  addPeersCommand(program, context);
  addTreeCommand(program, context);
  addCacheCommands(program, context);
  addConfigCommands(program, context);
  prepare(program, context);
  return program;
}

/** Commander must neither end the process nor write past our terminal, in any sub-command. */
function prepare(command: Command, context: CommandContext): void {
  command.exitOverride();
  command.configureOutput({
    writeOut: (text) => {
      context.terminal.print(text.trimEnd());
    },
    writeErr: (text) => {
      context.terminal.notice(text.trimEnd());
    },
    outputError: (text, write) => {
      write(text.replace(/^error: /, "faasnet: "));
    },
  });
  for (const child of command.commands) prepare(child, context);
}

/** `argv` without the program's own name. */
export async function runProgram(
  argv: readonly string[],
  context: CommandContext,
  info: ProgramInfo,
): Promise<ExitCode> {
  try {
    await buildProgram(context, info).parseAsync(argv, { from: "user" });
    return EXIT.ok;
  } catch (error) {
    // Commander has said what it has to say.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    const { message, hint, exitCode } = showError(error);
    if (exitCode === EXIT.interrupted && context.signal.aborted) {
      context.terminal.notice("faasnet: interrupted");
      return exitCode;
    }
    context.terminal.notice(`faasnet: ${message}`);
    if (hint !== "") context.terminal.notice(`  ${hint}`);
    return exitCode;
  }
}

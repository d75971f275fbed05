/** `faasnet config default` and `faasnet config check`. */
import type { Command } from "commander";
import { addExamples } from "../command-context.ts";
import type { CommandContext } from "../command-context.ts";

export function addConfigCommands(program: Command, context: CommandContext): void {
  const config = program.command("config").description("Print or check the configuration.");

  addExamples(
    config
      .command("default")
      .description("Print the default configuration file, with an explanation of every key."),
    ["faasnet config default > /etc/faasnet/config.toml"],
  ).action(() => {
    context.terminal.print(context.api.defaultConfigToml().trimEnd());
  });

  addExamples(
    config
      .command("check")
      .description("Check a configuration file and name all its mistakes; exit code 2 if any.")
      .argument("[file]", "the file (default: /etc/faasnet/config.toml, if there)"),
    ["faasnet config check", "faasnet config check ./config.toml"],
  ).action(async (file: string | undefined) => {
    await context.api.loadConfig({ file });
    context.terminal.print(file === undefined ? "ok" : `${file}: ok`);
  });
}

/** `faasnet daemon`: the supervisor and the snapshotter, until a signal. */
import type { Command } from "commander";
import { addCommand, loadPlace } from "../command-context.ts";
import type { CommandContext, PlaceOptions } from "../command-context.ts";

export function addDaemonCommand(program: Command, context: CommandContext): void {
  addCommand(program, "daemon", {
    description:
      "Run the snapshotter for containerd. SIGTERM stops it cleanly: what no container uses is " +
      "unmounted, the rest stays served. A second signal ends it at once.",
    examples: [
      "faasnet daemon",
      "faasnet daemon --config ./config.toml --address /run/faasnet/faasnet.sock",
    ],
  })
    .option("--address <socket>", "socket for containerd (default: STATE/faasnet.sock)")
    .action(async (options: PlaceOptions & { readonly address?: string }) => {
      const config = await loadPlace(context, options, { address: options.address });
      await context.api.runDaemon(config, { signal: context.signal });
    });
}

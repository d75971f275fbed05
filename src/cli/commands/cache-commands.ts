/** `faasnet cache` and `faasnet cache clear`. */
import type { Command } from "commander";
import {
  addCommand,
  addExamples,
  addPlaceOptions,
  connectDaemon,
  jsonOption,
  printJson,
} from "../command-context.ts";
import type { CommandContext, JsonOptions, PlaceOptions } from "../command-context.ts";
import { formatBytes, formatCount, formatPercent, formatTable, shortDigest } from "../format.ts";
import type { CacheReport } from "../reports.ts";

type CacheFlags = PlaceOptions & JsonOptions;

export function addCacheCommands(program: Command, context: CommandContext): void {
  const cache = addCommand(program, "cache", {
    description: "Show what is cached, by layer.",
    examples: ["faasnet cache", "faasnet cache --json", "faasnet cache clear"],
  })
    .addOption(jsonOption())
    .action(async (options: CacheFlags) => {
      await using client = await connectDaemon(context, options);
      const report = await client.cacheList({ signal: context.signal });
      if (options.json === true) printJson(context, report);
      else for (const line of cacheLines(report)) context.terminal.print(line);
    });

  const clear = cache
    .command("clear")
    .description(
      "Drop cached blocks; maps and claimed snapshots stay, so that images stay lazy. Works " +
        "while containers run: they fetch again what they read.",
    );
  addExamples(addPlaceOptions(clear), ["faasnet cache clear"])
    .addOption(jsonOption())
    .action(async (_options: CacheFlags, command: Command) => {
      // Both commands know these options; given before `clear` they belong to `cache`.
      const options: CacheFlags = command.optsWithGlobals();
      await using client = await connectDaemon(context, options);
      const cleared = await client.cacheClear({ signal: context.signal });
      if (options.json === true) printJson(context, cleared);
      else {
        const blocks = `${formatCount(cleared.blocks)} blocks`;
        context.terminal.print(`dropped ${formatBytes(cleared.bytes)} in ${blocks}`);
      }
    });
}

export function cacheLines(report: CacheReport): string[] {
  const { usedBytes, quotaBytes } = report;
  const share = formatPercent(usedBytes, quotaBytes);
  const head = `${formatBytes(usedBytes)} of ${formatBytes(quotaBytes)} used (${share})`;
  if (report.layers.length === 0) return [head];
  const table = formatTable(
    [
      { title: "LAYER (DIFF ID)" },
      { title: "UNPACKED", align: "right" },
      { title: "DECODED", align: "right" },
      { title: "BLOB", align: "right" },
      { title: "COMPLETE", align: "right" },
      { title: "IMAGES" },
    ],
    report.layers.map((layer) => [
      shortDigest(layer.diffId),
      formatBytes(layer.tarBytes),
      formatBytes(layer.decodedBytes),
      formatBytes(layer.blobBytes),
      formatPercent(layer.decodedBytes, layer.tarBytes),
      layer.images.join(", "),
    ]),
  );
  return [head, "", ...table];
}

/** `faasnet status`: what the daemon is doing. */
import type { Command } from "commander";
import { addCommand, connectDaemon, jsonOption, printJson } from "../command-context.ts";
import type { CommandContext, JsonOptions, PlaceOptions } from "../command-context.ts";
import {
  formatBytes,
  formatCount,
  formatDuration,
  formatFields,
  formatPercent,
  formatTable,
  shortDigest,
} from "../format.ts";
import type { StatusReport } from "../reports.ts";

export function addStatusCommand(program: Command, context: CommandContext): void {
  addCommand(program, "status", {
    description: "Show the daemon's images, where their blocks came from, and the cache.",
    examples: ["faasnet status", "faasnet status --json | jq .blocksBySource"],
  })
    .addOption(jsonOption())
    .action(async (options: PlaceOptions & JsonOptions) => {
      await using client = await connectDaemon(context, options);
      const report = await client.status({ signal: context.signal });
      if (options.json === true) printJson(context, report);
      else for (const line of statusLines(report)) context.terminal.print(line);
    });
}

export function statusLines(report: StatusReport): string[] {
  const { cache } = report;
  const uptime = formatDuration(report.uptimeSeconds);
  const used = `${formatBytes(cache.usedBytes)} of ${formatBytes(cache.quotaBytes)}`;
  const fields = formatFields([
    ["faasnet", `${report.version}, image service ${report.pid} up ${uptime}`],
    ["ready", report.ready ? "yes" : "no, the start-up self-test runs"],
    ["mode", `${report.mode} (${report.modeReason})`],
    ["cache", `${used}, ${formatCount(cache.layers)} layers`],
    ["waiting reads", formatCount(report.waitingReads)],
  ]);
  return [...fields, "", ...sourceLines(report), "", ...imageLines(report)];
}

function sourceLines(report: StatusReport): string[] {
  const rows = Object.entries(report.blocksBySource).map(([source, { blocks, bytes }]) => [
    source,
    formatCount(blocks),
    formatBytes(bytes),
  ]);
  if (rows.length === 0) return ["no block was read yet"];
  return formatTable(
    [
      { title: "BLOCKS FROM" },
      { title: "BLOCKS", align: "right" },
      { title: "BYTES", align: "right" },
    ],
    rows,
  );
}

function imageLines(report: StatusReport): string[] {
  if (report.images.length === 0) return ["no images"];
  return formatTable(
    [
      { title: "IMAGE" },
      { title: "MANIFEST" },
      { title: "LAYERS", align: "right" },
      { title: "SIZE", align: "right" },
      { title: "CACHED", align: "right" },
      { title: "MOUNTED" },
    ],
    report.images.map((image) => [
      image.reference === "" ? "-" : image.reference,
      shortDigest(image.manifestDigest),
      formatCount(image.layers),
      formatBytes(image.imageBytes),
      formatPercent(image.presentBytes, image.imageBytes),
      image.mounted ? "yes" : "no",
    ]),
  );
}

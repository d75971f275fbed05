/** `faasnet inspect` and `faasnet fetch`: one image of a running daemon. */
import type { Command } from "commander";
import {
  addCommand,
  connectDaemon,
  jsonOption,
  platformOption,
  printJson,
} from "../command-context.ts";
import type {
  CommandContext,
  JsonOptions,
  PlaceOptions,
  PlatformOptions,
} from "../command-context.ts";
import { CliError } from "../cli-error.ts";
import type { EnsureProgress } from "../../daemon/index.ts";
import {
  formatBytes,
  formatCount,
  formatFields,
  formatPercent,
  formatTable,
  shortDigest,
} from "../format.ts";
import type { FillProgress } from "../image-client.ts";
import { mapProgressState } from "../map-progress.ts";
import { ProgressDisplay } from "../progress.ts";
import type { InspectReport } from "../reports.ts";

type InspectFlags = PlaceOptions & JsonOptions & PlatformOptions;

export function addInspectCommand(program: Command, context: CommandContext): void {
  addCommand(program, "inspect", {
    description:
      "Show an image's layers with the sizes of their maps, blocks and cached bytes. Makes the " +
      "maps that are missing (reads those layers once).",
    examples: [
      "faasnet inspect docker.io/library/debian:12",
      "faasnet inspect --json localhost:5000/app:1",
    ],
  })
    .argument("<image>", "the image")
    .addOption(platformOption())
    .addOption(jsonOption())
    .action(async (reference: string, options: InspectFlags) => {
      await using client = await connectDaemon(context, options);
      const display = new ProgressDisplay(context.terminal.progress, context.clock);
      try {
        const onProgress = (progress: EnsureProgress): void => {
          display.update(mapProgressState(progress));
        };
        const image = { reference, platform: options.platform };
        const report = await client.inspect(image, { signal: context.signal, onProgress });
        display.finish();
        if (options.json === true) printJson(context, report);
        else for (const line of inspectLines(report)) context.terminal.print(line);
      } finally {
        display.finish();
      }
    });
}

export function inspectLines(report: InspectReport): string[] {
  const sum = (pick: (layer: InspectReport["layers"][number]) => number): number =>
    report.layers.reduce((total, layer) => total + pick(layer), 0);
  const tarBytes = sum((layer) => layer.tarBytes);
  const presentBytes = sum((layer) => layer.presentBytes);
  const fields = formatFields([
    ["image", report.reference],
    ["manifest", report.manifestDigest],
    ["platform", report.platform],
    ["blobs", formatBytes(sum((layer) => layer.blobBytes))],
    ["unpacked", formatBytes(tarBytes)],
    ["maps", formatBytes(sum((layer) => layer.mapBytes))],
    ["cached", `${formatBytes(presentBytes)} (${formatPercent(presentBytes, tarBytes)})`],
  ]);
  const table = formatTable(
    [
      { title: "LAYER (DIFF ID)" },
      { title: "BLOB", align: "right" },
      { title: "UNPACKED", align: "right" },
      { title: "ENTRIES", align: "right" },
      { title: "CODEC" },
      { title: "BLOCKS", align: "right" },
      { title: "MAP", align: "right" },
      { title: "CACHED", align: "right" },
    ],
    report.layers.map((layer) => [
      shortDigest(layer.diffId),
      formatBytes(layer.blobBytes),
      formatBytes(layer.tarBytes),
      formatCount(layer.entries),
      layer.codec,
      formatCount(layer.blocks),
      formatBytes(layer.mapBytes),
      formatPercent(layer.presentBytes, layer.tarBytes),
    ]),
  );
  return [...fields, "", ...table];
}

type FetchFlags = PlaceOptions & PlatformOptions & { readonly wait?: true };

export function addFetchCommand(program: Command, context: CommandContext): void {
  addCommand(program, "fetch", {
    description:
      "Fetch all of an image into the cache, after which it needs no registry. The daemon goes " +
      "on when this command ends; --wait stays until it is complete.",
    examples: ["faasnet fetch --wait docker.io/library/debian:12"],
  })
    .argument("<image>", "the image")
    .option("--wait", "show progress and end when the image is complete")
    .addOption(platformOption())
    .action(async (reference: string, options: FetchFlags) => {
      const image = { reference, platform: options.platform };
      await using client = await connectDaemon(context, options);
      const run = async (
        signal: AbortSignal,
        onProgress: (progress: FillProgress) => void,
      ): Promise<FillProgress> => client.fill(image, { signal, onProgress });
      if (options.wait === true) await fetchAll(context, run);
      else await startFetch(context, run);
    });
}

type RunFill = (
  signal: AbortSignal,
  onProgress: (progress: FillProgress) => void,
) => Promise<FillProgress>;

async function fetchAll(context: CommandContext, run: RunFill): Promise<void> {
  const display = new ProgressDisplay(context.terminal.progress, context.clock);
  try {
    const { doneBytes, totalBytes } = await run(context.signal, (progress) => {
      display.update({ label: "fetching", ...progress });
    });
    display.finish();
    if (doneBytes < totalBytes) throw noRoom(doneBytes, totalBytes);
    context.terminal.print(`complete: ${formatBytes(totalBytes)}, no registry needed any more`);
  } finally {
    display.finish();
  }
}

/** The daemon ends a fill early for one reason only: the cache takes no more. */
function noRoom(doneBytes: number, totalBytes: number): CliError {
  const amount = `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`;
  return new CliError("resource-exhausted", `the cache holds only ${amount} of the image`, {
    hint: "raise cache.quota_bytes, or make room on the disk (cache.min_free_bytes)",
  });
}

/** The first sign of progress means that the daemon has taken it on. */
async function startFetch(context: CommandContext, run: RunFill): Promise<void> {
  const leaving = new AbortController();
  const signal = AbortSignal.any([context.signal, leaving.signal]);
  try {
    await run(signal, () => {
      leaving.abort();
    });
  } catch (error) {
    if (!leaving.signal.aborted) throw error;
  }
  context.terminal.print("started: `faasnet status` shows how far it is");
}

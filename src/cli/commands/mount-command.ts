/** `faasnet mount` and `faasnet umount`: one image at one folder, without containerd. */
import { resolve } from "node:path";
import { Option } from "commander";
import type { Command } from "commander";
import {
  addCommand,
  jsonOption,
  loadPlace,
  platformOption,
  printJson,
} from "../command-context.ts";
import type {
  CommandContext,
  JsonOptions,
  PlaceOptions,
  PlatformOptions,
} from "../command-context.ts";
import { MODE_SETTINGS } from "../../daemon/index.ts";
import type { ModeSetting, MountSummary } from "../../daemon/index.ts";
import { formatBytes, formatCount } from "../format.ts";
import { mapProgressState } from "../map-progress.ts";
import { ProgressDisplay } from "../progress.ts";

type MountFlags = PlaceOptions & JsonOptions & PlatformOptions & { readonly mode: ModeSetting };

export function addMountCommand(program: Command, context: CommandContext): void {
  addCommand(program, "mount", {
    description:
      "Mount an image at an existing folder, fetching only what is read; stays until ctrl-C or " +
      "`faasnet umount DIR`. IMAGE is a reference, oci:DIR, oci-archive:FILE or " +
      "docker-archive:FILE. Needs no daemon.",
    examples: [
      "faasnet mount docker.io/library/debian:12 /mnt",
      "faasnet mount --mode fuse --platform linux/arm64 localhost:5000/app:1 /mnt",
      "faasnet mount oci-archive:image.tar /mnt",
    ],
  })
    .argument("<image>", "the image")
    .argument("<dir>", "where to mount it")
    .addOption(
      new Option("--mode <mode>", "how to mount it").choices(MODE_SETTINGS).default("auto"),
    )
    .addOption(platformOption())
    .addOption(jsonOption())
    .action(async (image: string, target: string, options: MountFlags) => {
      await mount(context, { image, target: resolve(target) }, options);
    });
}

async function mount(
  context: CommandContext,
  what: { readonly image: string; readonly target: string },
  options: MountFlags,
): Promise<void> {
  const { terminal, signal } = context;
  const { root, state } = await loadPlace(context, options);
  const display = new ProgressDisplay(terminal.progress, context.clock);
  const { mode, platform, config: configFile } = options;
  const request = { ...what, mode, platform, root, state, configFile };
  try {
    const summary = await context.api.runMount(request, {
      signal,
      onProgress: (progress) => {
        display.update(mapProgressState(progress));
      },
      onMounted: (mounted) => {
        const { modeReason, files } = mounted;
        display.finish();
        const size = `${formatCount(files)} files`;
        terminal.notice(`mounted at ${what.target}: ${size}, ${mounted.mode} mode (${modeReason})`);
        terminal.notice("ctrl-C unmounts it");
      },
    });
    if (options.json === true) printJson(context, summary);
    else terminal.print(summaryLine(summary));
  } finally {
    display.finish();
  }
}

/** `26,903 files, 392 MB in the image, 43.1 MB fetched; blocks: 12 memory, 41 registry` */
export function summaryLine(summary: MountSummary): string {
  const blocks = Object.entries(summary.blocksBySource)
    .filter(([, count]) => count > 0)
    .map(([source, count]) => `${formatCount(count)} ${source}`);
  return [
    `${formatCount(summary.files)} files`,
    `${formatBytes(summary.imageBytes)} in the image`,
    `${formatBytes(summary.fetchedBytes)} fetched; blocks: ${blocks.join(", ") || "none"}`,
  ].join(", ");
}

export function addUmountCommand(program: Command, context: CommandContext): void {
  addCommand(program, "umount", {
    description: "Unmount what `faasnet mount` mounted; its process then prints its line and ends.",
    examples: ["faasnet umount /mnt"],
  })
    .argument("<dir>", "where it is mounted")
    .action(async (target: string, options: PlaceOptions) => {
      const { state } = await loadPlace(context, options);
      await context.api.umount({ target: resolve(target), state }, { signal: context.signal });
    });
}

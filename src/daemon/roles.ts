/** How the image service and the keeper are started. */
import { DaemonError } from "../base/errors.ts";
import type { Config } from "./config.ts";
import { statePaths } from "./paths.ts";
import type { RoleSpec } from "./supervisor.ts";

/** V8 keeps its young generation small: these roles hold buffers, not objects. */
const SMALL_HEAP = ["--max-semi-space-size=2"];

export function keeperRole(config: Config, options: { readonly tiedTo?: string } = {}): RoleSpec {
  const { keeperSocket, state } = statePaths(config.state);
  const args = ["--socket", keeperSocket, "--state", state, "--log-level", config.logLevel];
  return {
    name: "keeper",
    entry: "../keeper/keeper-process.js",
    args: options.tiedTo === undefined ? args : [...args, "--tied-to-stdin", options.tiedTo],
    nodeOptions: [...SMALL_HEAP, "--max-old-space-size=256"],
    socket: keeperSocket,
    isTied: options.tiedTo !== undefined,
  };
}

export function imageServiceRole(config: Config, configFile: string): RoleSpec {
  if (!configFile.startsWith("/")) throw new DaemonError("internal", "config file is relative");
  return {
    name: "image-service",
    entry: "./image-service-process.js",
    args: [configFile],
    nodeOptions: [...SMALL_HEAP, "--max-old-space-size=512"],
    socket: statePaths(config.state).imageSocket,
    isTied: false,
  };
}

/** How the image service and the keeper are started. */
import { DaemonError } from "../base/errors.ts";
import type { Config } from "./config.ts";
import { statePaths } from "./paths.ts";
import type { RoleSpec } from "./supervisor.ts";

/** V8 keeps its young generation small: these roles hold buffers, not objects. */
const SMALL_HEAP = ["--max-semi-space-size=2"];
/**
 * What a node costs that starts one container is its first second: V8 spends more of it on itself
 * than on the program (docs/memory.md has figures).
 * - `initial-old-space-size`: without it the heap's limit follows what it holds from the first
 *   megabytes on, and the whole of it is marked again every few hundred milliseconds.
 * - `concurrent-marking-max-worker-num`, `no-parallel-scavenge`: the heap is a few megabytes; four
 *   threads that look for work in it find each other.
 * - `wasm-tiering-budget` (default 1.8 million): undici's HTTP parser is one function of 33 KB of
 *   WebAssembly. Optimizing it costs 0.2 s and 40 MB, after about twenty calls of it.
 */
const SHORT_LIFE = [
  "--initial-old-space-size=48",
  "--concurrent-marking-max-worker-num=1",
  "--no-parallel-scavenge",
  "--wasm-tiering-budget=1000000000",
];

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
    nodeOptions: [...SMALL_HEAP, ...SHORT_LIFE, "--max-old-space-size=512"],
    socket: statePaths(config.state).imageSocket,
    isTied: false,
  };
}

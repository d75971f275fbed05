/** Somebody without the key, in a namespace of its own (stranger-process.ts). */
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { run, type Lab } from "../lab/index.ts";
import type { Host } from "./network.ts";

export interface StrangerTarget {
  readonly host: string;
  readonly gossipPort: number;
  readonly exchangePort: number;
}

export interface StrangerPlan {
  readonly targets: readonly StrangerTarget[];
  readonly seconds: number;
  /** Of the exchange, as a member or client asks for them. */
  readonly paths: readonly string[];
  /** A request for blocks as a member would send it. */
  readonly blocksRequest: string;
  /** Whose name it takes. */
  readonly member: string;
  readonly selfSigned: { readonly cert: string; readonly key: string };
  /** UDP payloads that members sent, base64. */
  readonly packets: readonly string[];
  /** What only members may read: nothing that is received may have it. */
  readonly markers: readonly string[];
}

export interface StrangerResult {
  /** By kind. */
  readonly attempts: Readonly<Record<string, number>>;
  /** What was answered in HTTP, whatever the status: nothing should be. */
  readonly answered: readonly string[];
  readonly udp: {
    readonly sentBytes: number;
    readonly receivedBytes: number;
    readonly received: number;
    /** Packets received with a marker in them. */
    readonly marked: number;
  };
}

/** After the plan's time it has this long to end, ms. */
const END_MS = 60_000;

export async function runStranger(
  lab: Lab,
  host: Host,
  plan: StrangerPlan,
): Promise<StrangerResult> {
  const file = lab.path("stranger.json");
  await writeFile(file, JSON.stringify(plan));
  const program = fileURLToPath(new URL("stranger-process.js", import.meta.url));
  const [enter, ...args] = [...host.wrapper, process.execPath, program, file];
  const timeoutMs = plan.seconds * 1000 + END_MS;
  const { stdout } = await run(enter, args, { env: lab.env, timeoutMs });
  return JSON.parse(stdout) as StrangerResult;
}

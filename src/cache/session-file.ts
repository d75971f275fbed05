/**
 * Whether the bitmaps can be believed. After a stop that was not clean and a new boot they are
 * not: each block is verified before its first use. A process that was merely killed leaves a
 * page cache that is as good as it was.
 */
import { join } from "node:path";
import type { CacheFiles } from "./cache-files.ts";

const FILE_NAME = "session.json";

export interface CacheSession {
  /** Layer IDs whose bitmaps are not believed; `all`: none is. */
  readonly doubtful: ReadonlySet<string> | "all";
}

/** What the last session left; an unreadable file counts as an unclean stop. */
export async function readSession(
  files: CacheFiles,
  root: string,
  bootId: string,
): Promise<CacheSession> {
  const text = await files.readText(join(root, FILE_NAME));
  if (text === undefined) return { doubtful: "all" };
  const session = parseSession(text);
  if (session === undefined) return { doubtful: "all" };
  const isBelieved = session.state === "clean" || session.bootId === bootId;
  return { doubtful: isBelieved ? session.doubtful : "all" };
}

/** `open` before the first write of a session, `clean` after its last. */
export async function writeSession(
  files: CacheFiles,
  root: string,
  session: {
    readonly state: "open" | "clean";
    readonly bootId: string;
    readonly doubtful: ReadonlySet<string> | "all";
  },
): Promise<void> {
  const doubtful = session.doubtful === "all" ? "all" : [...session.doubtful].sort();
  const text = JSON.stringify({ version: 1, ...session, doubtful });
  await files.replaceText(join(root, FILE_NAME), `${text}\n`);
}

function parseSession(text: string):
  | {
      readonly state: "open" | "clean";
      readonly bootId: string;
      readonly doubtful: ReadonlySet<string> | "all";
    }
  | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined; // torn or foreign: nothing in it is believed
  }
  if (typeof value !== "object" || value === null) return undefined;
  if (!("version" in value) || value.version !== 1) return undefined;
  if (!("state" in value) || (value.state !== "open" && value.state !== "clean")) return undefined;
  if (!("bootId" in value) || typeof value.bootId !== "string") return undefined;
  if (!("doubtful" in value)) return undefined;
  const { state, bootId, doubtful } = value;
  if (doubtful === "all") return { state, bootId, doubtful };
  if (!Array.isArray(doubtful)) return undefined;
  const ids = new Set<string>();
  for (const id of doubtful) if (typeof id === "string") ids.add(id);
  return { state, bootId, doubtful: ids };
}

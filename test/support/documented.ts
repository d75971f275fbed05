/** What documents say about the code, read from the code itself. */
import { posix } from "node:path";
import { importsOf } from "./layers.ts";
import type { SourceFile } from "./source-files.ts";

export interface Limit {
  readonly name: string;
  /** As written in the source. */
  readonly value: string;
  readonly path: string;
  /** First sentence of the comment above it; empty where the name says it all. */
  readonly why: string;
}

/** Named bounds: `X_MAX`, `X_MIN`, with an optional comment directly above. */
const LIMIT_PATTERN =
  /(?:\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\n)?^(?:export )?const ([A-Z0-9_]+_(?:MAX|MIN))(?:: [^=\n]+)? =\s*([^;]+);/gm;

export function limitsOf(files: readonly SourceFile[]): Limit[] {
  return files.flatMap(({ path, text }) =>
    [...text.matchAll(LIMIT_PATTERN)].map(([, comment = "", name = "", value = ""]) => ({
      name,
      value: value.replaceAll(/\s+/g, " "),
      path,
      why: firstSentence(comment),
    })),
  );
}

function firstSentence(comment: string): string {
  const text = comment
    .replaceAll(/^\s*\*? ?/gm, " ")
    .replaceAll(/\s+/g, " ")
    .trim();
  const end = /^(?:[^.(]|\([^)]*\)|\.(?=\S))*/.exec(text)?.[0] ?? text;
  return end.replace(/:$/, "");
}

/** The rows of docs/LIMITS.md, by module. */
export function limitsTable(limits: readonly Limit[]): string {
  const cell = (text: string): string => text.replaceAll("|", "\\|");
  const modules = new Map<string, Limit[]>();
  for (const limit of limits) {
    const name = limit.path.split("/")[1] ?? "";
    modules.set(name, [...(modules.get(name) ?? []), limit]);
  }
  return [...modules]
    .map(([name, list]) => {
      const rows = list.map(
        ({ name: limit, value, path, why }) =>
          `| \`${limit}\` | \`${cell(value)}\` | ${path.replace(/^src\/[^/]+\//, "")} | ${cell(why)} |`,
      );
      return [
        `## ${name}`,
        "",
        "| limit | value | file | what |",
        "|---|---|---|---|",
        ...rows,
      ].join("\n");
    })
    .join("\n\n");
}

export interface LogEvent {
  readonly level: string;
  readonly event: string;
}

/** `log.info("event"`, or one of two: `log.info(isDone ? "event" : "other"`. */
const LOG_PATTERN = /\.(error|warn|info|debug)\(\s*(?:[\w.]+ \? "([a-z0-9-]+)" : )?"([a-z0-9-]+)"/g;

/** Events that the sources log, with a constant name as the log's rules want it. */
export function logEventsOf(files: readonly SourceFile[]): LogEvent[] {
  const events = files.flatMap(({ text }) =>
    [...text.matchAll(LOG_PATTERN)].flatMap(([, level = "", ...names]) =>
      names.flatMap((event: string | undefined) => (event === undefined ? [] : [{ level, event }])),
    ),
  );
  return [...new Map(events.map((one) => [`${one.level} ${one.event}`, one])).values()];
}

/** A table of docs/ARCHITECTURE.md that names files of src/: for each row, the paths. */
export interface FileTable {
  /** Whether its rows follow each other as calls do. */
  readonly isOrdered: boolean;
  readonly rows: readonly (readonly string[])[];
}

/** Tables with a column `file`; those with steps are ordered. Row by row, `src/` in front. */
export function fileTablesOf(text: string): FileTable[] {
  return [...text.matchAll(/^\| (step|when|for) \| file \|.*\n\|[-|]+\n((?:\|.*\n)+)/gm)].map(
    ([, first, body = ""]) => ({
      isOrdered: first === "step",
      rows: body
        .split("\n")
        .map((row) => row.split(" | ")[1] ?? "")
        .map((cell) =>
          [...cell.matchAll(/`([\w./-]+\.ts)`/g)].map(([, path = ""]) => `src/${path}`),
        )
        .filter((paths) => paths.length > 0),
    }),
  );
}

/** Files of an ordered table that no import, either way, joins to what stands before them. */
export function unjoined(table: FileTable, files: readonly SourceFile[]): string[] {
  const edges = importEdges(files);
  const areJoined = (a: string, b: string): boolean =>
    edges.has(`${a} ${b}`) || edges.has(`${b} ${a}`);
  const before: string[] = [...(table.rows[0] ?? [])];
  const strangers: string[] = [];
  for (const row of table.rows.slice(1)) {
    let waiting = [...row];
    for (let count = -1; count !== waiting.length;) {
      count = waiting.length;
      before.push(...waiting.filter((path) => before.some((other) => areJoined(path, other))));
      waiting = waiting.filter((path) => !before.includes(path));
    }
    strangers.push(...waiting);
  }
  return strangers;
}

/** `importer imported`; who goes through a door may mean any file behind it. */
function importEdges(files: readonly SourceFile[]): Set<string> {
  const edges = new Set<string>();
  for (const file of files) {
    for (const specifier of importsOf(file).filter((one) => one.startsWith("."))) {
      const target = posix.join(posix.dirname(file.path), specifier);
      edges.add(`${file.path} ${target}`);
      if (posix.basename(target) !== "index.ts") continue;
      const folder = `${posix.dirname(target)}/`;
      for (const { path } of files) {
        if (path.startsWith(folder)) edges.add(`${file.path} ${path}`);
      }
    }
  }
  return edges;
}

/** What documents say about the code, read from the code itself. */
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

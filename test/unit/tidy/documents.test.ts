/**
 * Documents that tell facts of the code tell the right ones. `UPDATE_DOCS=1` writes the generated
 * parts anew.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "smol-toml";
import { packageRoot } from "../../../src/base/package-root.ts";
import { EXIT } from "../../../src/cli/exit-codes.ts";
import { DEFAULT_CONFIG_TOML } from "../../../src/daemon/config-file.ts";
import { limitsOf, limitsTable, logEventsOf } from "../../support/documented.ts";
import { readFile, readFiles } from "../../support/source-files.ts";

const SOURCES = readFiles("src", ".ts");
const GENERATED_BELOW = "<!-- generated: UPDATE_DOCS=1 npm run test:unit -->";

describe("docs/LIMITS.md", () => {
  it("lists every named limit with its value", () => {
    const { text } = readFile("docs/LIMITS.md");
    const end = text.indexOf(GENERATED_BELOW) + GENERATED_BELOW.length;
    const expected = `${text.slice(0, end)}\n\n${limitsTable(limitsOf(SOURCES))}\n`;
    if (process.env["UPDATE_DOCS"] === "1") {
      writeFileSync(join(packageRoot(), "docs/LIMITS.md"), expected);
      return;
    }

    assert.equal(text, expected);
  });
});

describe("docs/observability.md", () => {
  const { text } = readFile("docs/observability.md");
  const rows = [...text.matchAll(/^\| `([a-z0-9-]+)` \| (error|warn|info)(?:, (warn|info))? \|/gm)];
  const documented = rows.flatMap(([, event = "", ...levels]) =>
    levels.flatMap((level: string | undefined) => (level === undefined ? [] : `${level} ${event}`)),
  );
  const logged = logEventsOf(SOURCES)
    .filter(({ level }) => level !== "debug")
    .map(({ level, event }) => `${level} ${event}`);

  it("explains every event that is logged above debug, at its level", () => {
    assert.deepEqual(
      logged.filter((event) => !documented.includes(event)),
      [],
    );
  });

  it("names no event that does not exist", () => {
    assert.deepEqual(
      documented.filter((event) => !logged.includes(event)),
      [],
    );
  });
});

describe("docs/cli.md", () => {
  it("lists the exit codes", () => {
    const rows = [...readFile("docs/cli.md").text.matchAll(/^\| (\d+) \|/gm)];

    assert.deepEqual(
      rows.map(([, code]) => Number(code)),
      Object.values(EXIT),
    );
  });
});

describe("docs/configuration.md", () => {
  /** `section.key` of every value. */
  function keysOf(table: object, prefix = ""): string[] {
    return Object.entries(table).flatMap(([key, value]: [string, unknown]) =>
      typeof value === "object" && value !== null && !Array.isArray(value)
        ? keysOf(value, `${prefix}${key}.`)
        : [prefix + key],
    );
  }

  it("explains every key of the default file, in its order, and no other", () => {
    const rows = [...readFile("docs/configuration.md").text.matchAll(/^\| `([a-z_.]+)` \|/gm)];

    assert.deepEqual(
      rows.map(([, key = ""]) => key),
      keysOf(parse(DEFAULT_CONFIG_TOML)),
    );
  });
});

describe("limitsOf", () => {
  it("reads name, value, file and the first sentence of the comment", () => {
    const text =
      "/** What waits (in bytes, v1.0). More is refused. */\n" +
      "export const QUEUE_BYTES_MAX = 2 *\n  1024;\n" +
      "const TRIES_MAX: number = 3;\nconst OTHER = 4;\n";

    assert.deepEqual(limitsOf([{ path: "src/a/b.ts", text }]), [
      {
        name: "QUEUE_BYTES_MAX",
        value: "2 * 1024",
        path: "src/a/b.ts",
        why: "What waits (in bytes, v1.0)",
      },
      { name: "TRIES_MAX", value: "3", path: "src/a/b.ts", why: "" },
    ]);
  });
});

describe("logEventsOf", () => {
  it("finds constant events with their level, once", () => {
    const text =
      'log.warn(\n  "a-b", {});\nlog.warn("a-b");\nlog.info(event);\n' +
      'log.info(isDone ? "c" : "d");\n';

    assert.deepEqual(logEventsOf([{ path: "x", text }]), [
      { level: "warn", event: "a-b" },
      { level: "info", event: "c" },
      { level: "info", event: "d" },
    ]);
  });
});

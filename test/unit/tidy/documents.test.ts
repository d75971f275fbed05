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
import {
  fileTablesOf,
  limitsOf,
  limitsTable,
  logEventsOf,
  unjoined,
} from "../../support/documented.ts";
import { readFile, readFiles } from "../../support/source-files.ts";

const SOURCES = readFiles("src", ".ts");
const GENERATED_BELOW = "<!-- generated: UPDATE_DOCS=1 npm run test:unit -->";

describe("docs/ARCHITECTURE.md", () => {
  const { text } = readFile("docs/ARCHITECTURE.md");
  const tables = fileTablesOf(text);
  const named = new Set(tables.flatMap(({ rows }) => rows.flat()));
  const base = /^`base` is under all of them: ([^.]*)\.$/m.exec(text)?.[1] ?? "";
  for (const [, name = ""] of base.matchAll(/`([\w-]+)`/g)) named.add(`src/base/${name}.ts`);
  const files = SOURCES.map(({ path }) => path).filter(
    (path) => !path.endsWith(".d.ts") && !path.endsWith("/index.ts"),
  );

  it("gives every file of src/ its place: on a read's way, on a pull's, or beside both", () => {
    assert.deepEqual(
      files.filter((path) => !named.has(path)),
      [],
    );
  });

  it("names no file that is not there, and none twice on one way", () => {
    const twice = tables.flatMap(({ rows }) =>
      rows.flat().filter((path, index, all) => all.indexOf(path) !== index),
    );

    assert.deepEqual(
      [...named].filter((path) => !files.includes(path)),
      [],
    );
    assert.deepEqual(twice, []);
  });

  it("joins each step of both ways to one before it", () => {
    const ways = tables.filter(({ isOrdered }) => isOrdered);

    assert.equal(ways.length, 2);
    assert.deepEqual(
      ways.flatMap((way) => unjoined(way, SOURCES)),
      [],
    );
  });
});

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
  function camelCase(key: string): string {
    return key.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  }

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

  it("explains no key that nothing reads", () => {
    const readers = SOURCES.filter(({ path }) => !/^src\/daemon\/config(-file)?\.ts$/.test(path));
    const isRead = (key: string): boolean => {
      const name = camelCase(key.split(".").at(-1) ?? "");
      return readers.some(({ text }) => new RegExp(`[.{ ]${name}\\b`).test(text));
    };

    assert.deepEqual(
      keysOf(parse(DEFAULT_CONFIG_TOML)).filter((key) => !isRead(key)),
      [],
    );
  });
});

describe("fileTablesOf", () => {
  it("reads the files of each row, and tells steps from lists", () => {
    const text =
      "| step | file | what |\n|---|---|---|\n| **keeper** | | |\n| a | `x/b.ts`, `x/c.ts` | `d` |\n" +
      "\n| when | file |\n|---|---|\n| e | `f.ts` |\n";

    assert.deepEqual(fileTablesOf(text), [
      { isOrdered: true, rows: [["src/x/b.ts", "src/x/c.ts"]] },
      { isOrdered: false, rows: [["src/f.ts"]] },
    ]);
  });
});

describe("unjoined", () => {
  it("finds steps that come before what leads to them, also through doors", () => {
    const files = [
      { path: "src/a/one.ts", text: 'import { two } from "../b/index.ts";' },
      { path: "src/b/index.ts", text: 'export { two } from "./two.ts";' },
      { path: "src/b/two.ts", text: 'import "./three.ts";' },
      { path: "src/b/three.ts", text: 'import "../c/four.ts";' },
      { path: "src/c/four.ts", text: "" },
    ];
    const way = (...rows: string[][]): string[] => unjoined({ isOrdered: true, rows }, files);

    assert.deepEqual(way(["src/a/one.ts"], ["src/b/three.ts", "src/b/two.ts"]), []);
    assert.deepEqual(way(["src/a/one.ts"], ["src/c/four.ts"], ["src/b/three.ts"]), [
      "src/c/four.ts",
    ]);
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

/** The sources keep to the layer table, and its checker sees violations. */
import assert from "node:assert/strict";
import {
  checkLayers,
  checkPure,
  findCycle,
  idlePermissions,
  importsOf,
  LAYERS,
  missingModules,
  PACKAGES,
  PURE_PATHS,
} from "../support/layers.ts";
import type { Violation } from "../support/layers.ts";
import { readFile, readFiles } from "../support/source-files.ts";
import type { SourceFile } from "../support/source-files.ts";

const SOURCES = readFiles("src", ".ts");

function show(violations: readonly Violation[]): string {
  return violations.map(({ path, rule }) => `${path} ${rule}`).join("\n");
}

function rulesFor(path: string, text: string): string[] {
  return checkLayers([{ path, text }]).map(({ rule }) => rule);
}

describe("the layers of src/", () => {
  it("are all there, each with its door", () => {
    assert.deepEqual(missingModules(SOURCES), []);
  });

  it("import only what the table allows, through doors", () => {
    assert.equal(show(checkLayers(SOURCES)), "");
  });

  it("are allowed nothing that they do not need", () => {
    assert.deepEqual(idlePermissions(SOURCES), []);
  });

  it("keep their pure parts pure", () => {
    assert.equal(show(checkPure(SOURCES)), "");
  });

  it("form no circle", () => {
    assert.equal(findCycle(LAYERS), undefined);
  });

  it("use every package that package.json names, and name every one that they use", () => {
    const manifest = JSON.parse(readFile("package.json").text) as {
      dependencies: Record<string, string>;
    };
    const used = new Set(
      SOURCES.flatMap(importsOf)
        .filter((specifier) => !specifier.startsWith(".") && !specifier.startsWith("node:"))
        .map((specifier) => specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/")),
    );

    assert.deepEqual(Object.keys(manifest.dependencies).sort(), [...used].sort());
    assert.deepEqual(Object.keys(PACKAGES).sort(), [...used].sort());
  });
});

describe("checkLayers", () => {
  for (const [name, path, text, expected] of [
    ["a sibling", "src/cache/a.ts", 'import { x } from "../registry/index.ts";', /not its layer/],
    [
      "a type of a sibling",
      "src/cache/a.ts",
      'import type { X } from "../registry/index.ts";',
      /not its layer/,
    ],
    ["an upper layer", "src/base/a.ts", 'export { x } from "../oci/index.ts";', /not its layer/],
    [
      "a dynamic import",
      "src/oci/a.ts",
      'const x = await import("../daemon/index.ts");',
      /not its layer/,
    ],
    ["an import type", "src/oci/a.ts", 'let x: import("../daemon/index.ts").X;', /not its layer/],
    ["a deep import", "src/image/a.ts", 'import { x } from "../oci/digest.ts";', /past the door/],
    ["the tests", "src/oci/a.ts", 'import { x } from "../../test/support/a.ts";', /outside src/],
    ["an unknown package", "src/oci/a.ts", 'import x from "left-pad/x.js";', /does not name/],
    [
      "a package of another module",
      "src/oci/a.ts",
      'import { x } from "fuse-native";',
      /not its home/,
    ],
    ["a file of no module", "src/a.ts", "", /no module/],
    ["a folder that is no module", "src/util/a.ts", "", /no module/],
  ] as const) {
    it(`catches ${name}`, () => {
      const rules = rulesFor(path, text);

      assert.equal(rules.length, 1);
      assert.match(rules[0] ?? "", expected);
    });
  }

  for (const [name, path, text] of [
    ["base file by file", "src/oci/a.ts", 'import { x } from "../base/errors.ts";'],
    ["a door below", "src/image/pass/a.ts", 'import { x } from "../../oci/index.ts";'],
    ["the own module", "src/image/pass/a.ts", 'import { x } from "../tree/b.ts";'],
    ["a package at home", "src/base/a.ts", 'import { pino } from "pino";'],
    [
      "words in comments and strings",
      "src/oci/a.ts",
      '// from "../daemon/index.ts"\nconst a = "../cli";',
    ],
  ] as const) {
    it(`accepts ${name}`, () => {
      assert.deepEqual(rulesFor(path, text), []);
    });
  }
});

describe("checkPure", () => {
  const pure = (text: string): string[] =>
    checkPure([{ path: "src/oci/a.ts", text }], ["src/oci/"]).map(({ rule }) => rule);

  for (const [name, text] of [
    ["files", 'import { open } from "node:fs/promises";'],
    ["sockets", 'import { connect } from "node:net";'],
    ["packages", 'import { request } from "undici";'],
    ["the clock", 'import { systemClock } from "../base/clock.ts";'],
    ["randomness of node:crypto", 'import { randomBytes } from "node:crypto";'],
    ["time", "export const now = (): number => Date.now();"],
    ["the environment", "export const home = process.env.HOME;"],
  ] as const) {
    it(`catches ${name}`, () => {
      assert.equal(pure(text).length, 1);
    });
  }

  it("accepts hashing, errors and words in comments", () => {
    const text =
      'import { createHash } from "node:crypto";\n' +
      'import { DaemonError } from "../base/errors.ts";\n' +
      "/** Never calls Date.now. */ // nor Math.random";

    assert.deepEqual(pure(text), []);
  });

  it("catches a pure path that names nothing", () => {
    const files: SourceFile[] = [];

    assert.equal(checkPure(files).length, PURE_PATHS.length);
  });
});

describe("idlePermissions", () => {
  it("names what is allowed and not used", () => {
    const files = [
      { path: "src/cache/a.ts", text: 'import { x } from "../base/errors.ts";' },
      { path: "src/block/b.ts", text: 'import { LRUCache } from "lru-cache";' },
    ];

    const idle = idlePermissions(files);

    assert.ok(idle.includes("cache -> block"));
    assert.ok(idle.includes("registry -> undici"));
    assert.ok(!idle.includes("cache -> base"));
    assert.ok(!idle.includes("block -> lru-cache"));
  });
});

describe("missingModules", () => {
  it("names every module without a door", () => {
    const files = [
      { path: "src/base/errors.ts", text: "" },
      { path: "src/oci/index.ts", text: "" },
      { path: "src/image/pass/index.ts", text: "" },
    ];

    const missing = missingModules(files);

    assert.equal(missing.length, Object.keys(LAYERS).length - 2);
    assert.ok(missing.includes("image"));
  });
});

describe("findCycle", () => {
  it("names the circle", () => {
    assert.equal(findCycle({ a: ["b"], b: ["c"], c: ["b"] }), "a -> b -> c -> b");
  });
});

/** The source tree is tidy by the rules of test/support/tidy.ts, and the rules see faults. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../../src/base/package-root.ts";
import { idleExports } from "../../support/doors.ts";
import { importsOf, LAYERS } from "../../support/layers.ts";
import { fileSize, listFiles, readFile, readFiles } from "../../support/source-files.ts";
import { complaints, FILE_BYTES_MAX, linksOf, unreached } from "../../support/tidy.ts";

/** Text for people and programs; everything else (archives, images) is only weighed. */
const TEXT = /(\.(ts|js|json|md|toml|proto|ya?ml|sh|service|txt|conf)|\/[\w-]+|^[\w-]+|\.[\w]+rc)$/;
const FILES = listFiles("");

describe("the source tree", () => {
  it("holds no file over 1 MB", () => {
    assert.deepEqual(
      FILES.filter((path) => fileSize(path) > FILE_BYTES_MAX),
      [],
    );
  });

  it("is tidy", () => {
    const all = FILES.filter((path) => TEXT.test(path))
      .map(readFile)
      .flatMap((file) => complaints(file).map((complaint) => `${file.path} ${complaint}`));

    assert.equal(all.join("\n"), "");
  });

  it("holds no program that nothing reaches", () => {
    const files = readFiles("src", ".ts").filter(({ path }) => !path.endsWith(".d.ts"));

    assert.deepEqual(unreached(files, importsOf, ["src/cli/main.ts"]), []);
  });

  it("opens no door wider than anybody needs", () => {
    const files = ["src", "test", "bench", "scripts"].flatMap((folder) => readFiles(folder, ".ts"));

    assert.deepEqual(idleExports(files), []);
  });
});

describe("the documents", () => {
  const documents = readFiles("", ".md");

  it("link to files that are there", () => {
    const dead = documents.flatMap((file) =>
      linksOf(file)
        .filter((link) => !existsSync(join(packageRoot(), link)))
        .map((link) => `${file.path} links to ${link}`),
    );

    assert.deepEqual(dead, []);
  });

  it("show the layer table as it is checked", () => {
    const rows = [
      ...readFile("docs/ARCHITECTURE.md").text.matchAll(/^\| `(\w+)` \|.*\| ([^|]+) \|$/gm),
    ];

    const shown = Object.fromEntries(
      rows.map(([, name = "", list = ""]) => [
        name,
        list === "-" ? [] : list === "all" ? LAYERS[name] : list.split(", "),
      ]),
    );
    assert.deepEqual(shown, LAYERS);
  });

  it("justify every package in the decision about them, and no other", () => {
    const manifest = JSON.parse(readFile("package.json").text) as Record<
      "dependencies" | "devDependencies",
      Record<string, string>
    >;
    const names = Object.keys({ ...manifest.dependencies, ...manifest.devDependencies }).filter(
      (name) => !name.startsWith("@types/"),
    );
    const text = readFile("docs/adr/0001-packages.md").text;
    const rows = [...text.matchAll(/^\| `([^`]+)` \|/gm)].map(([, name = ""]) => name);

    assert.deepEqual(rows.sort(), names.sort());
  });
});

describe("complaints", () => {
  /** The faults below are sown with a `~` inside, so that this file itself is tidy. */
  const sown = (text: string): string => text.replaceAll("~", "");
  const HEADER = "/** What this is. */\n";

  for (const [name, path, text, expected] of [
    ["a missing header", "src/oci/a.ts", "export {};\n", /doc comment/],
    ["a long file", "src/oci/a.ts", HEADER + "x;\n".repeat(500), /has 501 lines/],
    [
      "a long line",
      "src/oci/a.ts",
      `${HEADER}// ${"word ".repeat(22)}\n`,
      /line 2 has 1\d\d columns/,
    ],
    ["work left without an issue", "src/oci/a.ts", HEADER + "// T~ODO later\n", /work is left/],
    [
      "an unexplained lint switch",
      "src/oci/a.ts",
      HEADER + "// eslint-dis~able-next-line x\n",
      /reason/,
    ],
    ["a conflict marker", "README.md", "# A\n<<<~<<<< HEAD\n", /conflict/],
    ["a focused test", "test/a.test.ts", HEADER + 'describe.on~ly("a", f);\n', /only one/],
    ["a vague name", "src/oci/utils.ts", HEADER, /says nothing/],
    ["a name in another case", "src/oci/BlockTable.ts", HEADER, /kebab/],
    ["two titles", "docs/a.md", "# A\n\n# B\n", /2 titles/],
    ["no title", "docs/a.md", "## A\n", /0 titles/],
    ["an unknown host", "docs/a.md", "# A\n\nhttps://mirror.cor~p.io/x\n", /mirror\.corp\.io/],
    [
      "a fetch address in the lock file",
      "package-lock.json",
      '"resolved": "http://m/x"',
      /fetched/,
    ],
    ["a leftover", "src/oci/a.ts.orig", "", /leftover/],
  ] as const) {
    it(`are made about ${name}`, () => {
      const found = complaints({ path, text: sown(text) });

      assert.equal(found.length, 1, found.join("; "));
      assert.match(found[0] ?? "", expected);
    });
  }

  for (const [name, path, text] of [
    ["a tidy file", "src/oci/digest.ts", HEADER + "// T~ODO(#12): the other\n"],
    ["an explained lint switch", "a.ts", HEADER + "// eslint-dis~able-next-line x -- it is data\n"],
    ["a program with a first line for the kernel", "bin/a.js", `#!/usr/bin/env node\n${HEADER}`],
    [
      "known hosts",
      "docs/a.md",
      "# A\nhttps://github.com/x http://127.0.0.1:5000 http://registry:5000\n",
    ],
    ["a title inside code", "docs/a.md", "# A\n```sh\n# comment\n```\n"],
  ] as const) {
    it(`are not made about ${name}`, () => {
      assert.deepEqual(complaints({ path, text: sown(text) }), []);
    });
  }
});

describe("linksOf", () => {
  it("resolves relative links and leaves out addresses, anchors and code", () => {
    const text =
      "[a](b.md#c) [d](https://e.example/) [f](#g) `[h](i)`\n```\n[j](k)\n```\n[l](../m/)";

    assert.deepEqual(linksOf({ path: "docs/adr/x.md", text }), ["docs/adr/b.md", "docs/m"]);
  });
});

describe("idleExports", () => {
  it("finds what a door names, alone or with a whole file, and nobody imports", () => {
    const files = [
      { path: "src/oci/index.ts", text: 'export { a, b } from "./x.ts";\nexport * from "./y.ts";' },
      { path: "src/oci/y.ts", text: "export const c = 1;\nexport type D = 2;\nconst e = 3;" },
      { path: "src/cli/z.ts", text: 'import { a as f, type D } from "../oci/index.ts";' },
    ];

    assert.deepEqual(idleExports(files), ["src/oci/index.ts b", "src/oci/index.ts c"]);
  });
});

describe("unreached", () => {
  it("follows imports and programs named in strings from the entry on", () => {
    const files = [
      { path: "src/cli/main.ts", text: 'import "../daemon/index.ts";' },
      { path: "src/daemon/index.ts", text: 'spawn("keeper-main.js")' },
      { path: "src/keeper/keeper-main.ts", text: "" },
      { path: "src/oci/dead.ts", text: 'import "../cli/main.ts";' },
      { path: "src/oci/index.ts", text: "" },
    ];

    const dead = ["src/oci/dead.ts", "src/oci/index.ts"];
    assert.deepEqual(unreached(files, importsOf, ["src/cli/main.ts"]), dead);
  });
});

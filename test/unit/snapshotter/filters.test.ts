/** containerd's filter language. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { DaemonError } from "../../../src/base/errors.ts";
import { parseFilter, parseFilters, snapshotFields } from "../../../src/snapshotter/filters.ts";
import type { SnapshotInfo } from "../../../src/snapshotter/snapshot-info.ts";

function info(fields: Partial<SnapshotInfo>): SnapshotInfo {
  return {
    name: "n",
    parent: "",
    kind: "active",
    createdNs: 0n,
    updatedNs: 0n,
    labels: new Map(),
    ...fields,
  };
}

function matches(filter: string, fields: Partial<SnapshotInfo>): boolean {
  return parseFilter(filter)(snapshotFields(info(fields)));
}

const REF = "containerd.io/snapshot.ref";
const CHAIN = `sha256:${"a".repeat(64)}`;

describe("filters", () => {
  const cases: readonly (readonly [string, Partial<SnapshotInfo>, boolean])[] = [
    // The filter by which containerd looks a claimed layer up.
    [`labels."${REF}"==${CHAIN},parent==""`, { labels: new Map([[REF, CHAIN]]) }, true],
    [`labels."${REF}"==${CHAIN},parent=="x"`, { labels: new Map([[REF, CHAIN]]) }, false],
    [
      `labels."${REF}"==${CHAIN},parent=="k8s.io/7/sha256:b \\"q\\""`,
      { labels: new Map([[REF, CHAIN]]), parent: 'k8s.io/7/sha256:b "q"' },
      true,
    ],
    ["", {}, true],
    ["name==n", {}, true],
    ['name == "n"', {}, true],
    ["name!=n", {}, false],
    ["kind==active", {}, true],
    ["kind==view,kind!=active", { kind: "view" }, true],
    ["kind==committed", { kind: "committed" }, true],
    ['parent!=""', {}, false],
    ['parent!=""', { parent: "p" }, true],
    ['parent==""', {}, true],
    ["parent", {}, true],
    ["nothing", {}, false],
    ["nothing!=x", {}, true],
    ["nothing==x", {}, false],
    ["labels.foo", { labels: new Map([["foo", "1"]]) }, true],
    ["labels.foo", {}, false],
    ["labels.foo==1", { labels: new Map([["foo", "1"]]) }, true],
    ["labels.a.b==1", { labels: new Map([["a.b", "1"]]) }, true],
    ['labels."a.b"==1', { labels: new Map([["a.b", "1"]]) }, true],
    ["labels.__proto__", {}, false],
    ["name~=^n$", {}, true],
    ["name~=/^(n|m)$/", {}, true],
    ["name~=|a,b|", { name: "xa,by" }, true],
    ["name~=(", {}, false],
    ["name~=[[:alpha:]]", {}, true],
    ["name~=(?i)N", {}, true],
    ["name~=/(n)\\\\1/", { name: "nn" }, false], // no backreferences in Go
    ['name=="a\\x62c"', { name: "abc" }, true],
    ['name=="\\xc3\\xa9"', { name: "é" }, true],
    ['name=="\\u00e9\\U0001f5dd\\101"', { name: "é🗝A" }, true],
  ];
  for (const [filter, fields, expected] of cases) {
    it(`${expected ? "matches" : "does not match"} ${JSON.stringify(filter)}`, () => {
      assert.equal(matches(filter, fields), expected);
    });
  }

  const malformed = [
    ",",
    "name,",
    "name==",
    "name=n",
    "name===n",
    "==n",
    'name=="x',
    'name=="\\q"',
    'name=="\\xg0"',
    'name=="\\U00110000"',
    "name==/x/",
    "name ,kind",
    "name==n kind",
    "labels.",
    "name~==",
    'name=="a\nb"',
    "x".repeat(20_000),
  ];
  for (const filter of malformed) {
    it(`refuses ${JSON.stringify(filter.slice(0, 30))}`, () => {
      assert.throws(() => parseFilter(filter), { code: "invalid-argument" });
    });
  }

  it("matches when any of several filters does, and with none at all", () => {
    const read = snapshotFields(info({ name: "b" }));
    assert.ok(parseFilters(["name==a", "name==b"])(read));
    assert.ok(!parseFilters(["name==a", "name==c"])(read));
    assert.ok(parseFilters([])(read));
    assert.throws(() => parseFilters(Array.from({ length: 65 }, () => "name")), {
      code: "invalid-argument",
    });
  });

  it("searches with an expression in linear time", () => {
    // Backtracking would take 2^4096 steps, and this test would be stopped.
    const labels = new Map([["x", "a".repeat(4096)]]);
    assert.ok(!matches("labels.x~=(a+)+b", { labels }));
  });

  it("reads back any quoted text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" }), (key, text) => {
        // JSON's escapes are among Go's.
        const filter = `labels.${JSON.stringify(key)}==${JSON.stringify(text)}`;
        assert.ok(matches(filter, { labels: new Map([[key, text]]) }));
        assert.ok(!matches(filter, { labels: new Map([[key, `${text}.`]]) }));
      }),
    );
  });

  it("refuses or takes any input, and fails in no other way", () => {
    const piece = fc.constantFrom(
      "name",
      "labels",
      ".",
      ",",
      "==",
      "!=",
      "~=",
      '"',
      "\\",
      "/",
      " ",
    );
    const input = fc.array(fc.oneof(piece, fc.string({ unit: "binary", maxLength: 3 })));
    fc.assert(
      fc.property(input, (parts) => {
        try {
          parseFilter(parts.join(""))(snapshotFields(info({})));
        } catch (error) {
          assert.ok(error instanceof DaemonError && error.code === "invalid-argument");
        }
      }),
      { numRuns: 2000 },
    );
  });
});

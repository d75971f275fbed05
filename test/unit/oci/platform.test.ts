/** Platforms: names, normal forms, and the order in which a machine prefers images. */
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  choosePlatform,
  formatPlatform,
  linuxPlatformOf,
  matchesPlatform,
  parsePlatform,
  platformRank,
} from "../../../src/oci/index.ts";

describe("parsePlatform", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["linux/amd64", "linux/amd64"],
    ["Linux/x86_64", "linux/amd64"],
    ["linux/amd64/v1", "linux/amd64"],
    ["linux/amd64/v3", "linux/amd64/v3"],
    ["linux/arm64/v8", "linux/arm64"],
    ["linux/aarch64", "linux/arm64"],
    ["linux/arm", "linux/arm/v7"],
    ["linux/arm/6", "linux/arm/v6"],
    ["linux/armhf", "linux/arm/v7"],
    ["linux/armel", "linux/arm/v6"],
    ["arm64", "linux/arm64"],
    ["x86_64", "linux/amd64"],
    ["windows/amd64", "windows/amd64"],
  ];
  for (const [text, expected] of cases) {
    it(`reads ${text}`, () => {
      assert.equal(formatPlatform(parsePlatform(text)), expected);
    });
  }

  for (const text of ["", "linux", "linux/", "a/b/c/d", "linux/amd 64", "/amd64", "x".repeat(99)]) {
    it(`refuses "${text.slice(0, 20)}"`, () => {
      assert.throws(() => parsePlatform(text), /platform/);
    });
  }

  it("gives its own text back", () => {
    const part = fc.stringMatching(/^[a-z0-9_.-]{1,12}$/);
    fc.assert(
      fc.property(part, part, fc.option(part, { nil: undefined }), (os, architecture, variant) => {
        const text = [os, architecture, ...(variant === undefined ? [] : [variant])].join("/");
        const once = formatPlatform(parsePlatform(text));
        assert.equal(formatPlatform(parsePlatform(once)), once);
      }),
    );
  });
});

describe("platformRank", () => {
  const cases: readonly (readonly [string, string, number | undefined])[] = [
    ["linux/amd64", "linux/amd64", 0],
    ["linux/amd64", "linux/386", 1],
    ["linux/amd64", "linux/amd64/v2", undefined],
    ["linux/amd64/v3", "linux/amd64/v3", 0],
    ["linux/amd64/v3", "linux/amd64/v2", 1],
    ["linux/amd64/v3", "linux/amd64", 2],
    ["linux/arm64", "linux/arm64/v8", 0],
    ["linux/arm64", "linux/arm/v7", 2],
    ["linux/arm/v7", "linux/arm/v6", 1],
    ["linux/arm/v6", "linux/arm/v7", undefined],
    ["linux/amd64", "linux/arm64", undefined],
    ["linux/amd64", "windows/amd64", undefined],
    ["linux/riscv64", "linux/riscv64", 0],
  ];
  for (const [wanted, offered, rank] of cases) {
    it(`ranks ${offered} for ${wanted} as ${rank ?? "unusable"}`, () => {
      assert.equal(platformRank(parsePlatform(wanted), parsePlatform(offered)), rank);
      assert.equal(
        matchesPlatform(parsePlatform(wanted), parsePlatform(offered)),
        rank !== undefined,
      );
    });
  }
});

describe("choosePlatform", () => {
  it("puts the best first, keeps the order of equals, and the unknown last", () => {
    const of = (text: string | undefined, value: string) => ({
      platform: text === undefined ? undefined : parsePlatform(text),
      value,
    });
    const candidates = [
      of(undefined, "unknown"),
      of("linux/386", "old"),
      of("linux/arm64", "other"),
      of("linux/amd64", "first"),
      of("linux/amd64", "second"),
    ];

    const order = choosePlatform(linuxPlatformOf("x64"), candidates);

    assert.deepEqual(order, ["first", "second", "old", "unknown"]);
  });
});

/**
 * Platforms: parsing, normalizing, and which of several a machine can run.
 * Source: github.com/containerd/platforms, database.go (names) and compare.go (order).
 */
import { DaemonError } from "../base/errors.ts";
import { optionalString, requiredString, stringArray } from "./json.ts";
import type { JsonNode } from "./json.ts";

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  /** Empty where the architecture has none or it is the default (`amd64`, `arm64`). */
  readonly variant: string;
  readonly osVersion: string;
  readonly osFeatures: readonly string[];
}

const COMPONENT_PATTERN = /^[A-Za-z0-9_.-]{1,64}$/;
const COMPONENT_CHARS_MAX = 64;

/** Names by which other tools call an architecture; a value may carry a variant. */
const ARCHITECTURE_ALIASES: ReadonlyMap<string, readonly [string, string]> = new Map([
  ["i386", ["386", ""]],
  ["x86_64", ["amd64", ""]],
  ["x86-64", ["amd64", ""]],
  ["x64", ["amd64", ""]],
  ["ia32", ["386", ""]],
  ["aarch64", ["arm64", ""]],
  ["armhf", ["arm", "v7"]],
  ["armel", ["arm", "v6"]],
]);

const KNOWN_ARCHITECTURES: ReadonlySet<string> = new Set(
  "386 amd64 arm arm64 loong64 mips mipsle mips64 mips64le ppc64 ppc64le riscv64 s390x wasm".split(
    " ",
  ),
);

function normalizeArchitecture(
  architecture: string,
  variant: string,
): { architecture: string; variant: string } {
  const name = architecture.toLowerCase();
  const version = variant.toLowerCase();
  const alias = ARCHITECTURE_ALIASES.get(name);
  if (alias !== undefined && alias[1] !== "") return { architecture: "arm", variant: alias[1] };
  const known = alias?.[0] ?? name;
  if (known === "amd64") return { architecture: known, variant: version === "v1" ? "" : version };
  if (known === "arm64") {
    return { architecture: known, variant: version === "v8" || version === "8" ? "" : version };
  }
  if (known === "arm") {
    const digit = /^v?([5-8])$/.exec(version)?.[1];
    return {
      architecture: known,
      variant: version === "" ? "v7" : digit === undefined ? version : `v${digit}`,
    };
  }
  return { architecture: known, variant: version };
}

export function normalizePlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase();
  return {
    ...platform,
    os: os === "macos" ? "darwin" : os,
    ...normalizeArchitecture(platform.architecture, platform.variant),
  };
}

/** `linux/amd64`, `linux/arm64/v8`, or only `arm64` (Linux is meant). Throws `invalid-argument`. */
export function parsePlatform(text: string): Platform {
  const parts = text.split("/");
  const [first = "", second, variant = ""] = parts;
  if (parts.length > 3 || !parts.every((part) => COMPONENT_PATTERN.test(part))) {
    throw new DaemonError(
      "invalid-argument",
      `platform "${text.slice(0, 100)}": expected OS/ARCHITECTURE[/VARIANT], such as linux/arm64`,
    );
  }
  const isArchitectureOnly = second === undefined;
  const platform = normalizePlatform({
    os: isArchitectureOnly ? "linux" : first,
    architecture: second ?? first,
    variant,
    osVersion: "",
    osFeatures: [],
  });
  if (isArchitectureOnly && !KNOWN_ARCHITECTURES.has(platform.architecture)) {
    throw new DaemonError(
      "invalid-argument",
      `platform "${text.slice(0, 100)}": unknown architecture, give OS/ARCHITECTURE`,
    );
  }
  return platform;
}

/** The platform of a machine by Node's `process.arch`; Linux, for nothing else can mount. */
export function linuxPlatformOf(nodeArchitecture: string): Platform {
  return normalizePlatform({
    os: "linux",
    architecture: nodeArchitecture,
    variant: "",
    osVersion: "",
    osFeatures: [],
  });
}

export function formatPlatform(platform: Platform): string {
  const variant = platform.variant === "" ? "" : `/${platform.variant}`;
  return `${platform.os}/${platform.architecture}${variant}`;
}

/** The `platform` object of a descriptor, or a config, which has the same fields at its top. */
function platformOfJson(node: JsonNode): Platform {
  const charsMax = { charsMax: COMPONENT_CHARS_MAX };
  return normalizePlatform({
    os: requiredString(node, "os", charsMax),
    architecture: requiredString(node, "architecture", charsMax),
    variant: optionalString(node, "variant", charsMax) ?? "",
    osVersion: optionalString(node, "os.version", charsMax) ?? "",
    osFeatures: stringArray(node, "os.features", { max: 64, charsMax: COMPONENT_CHARS_MAX }),
  });
}

/** Some builders write neither: that says nothing, as if the object were absent. */
export function tryPlatformOfJson(node: JsonNode): Platform | undefined {
  const isEmpty = (node.value["os"] ?? "") === "" && (node.value["architecture"] ?? "") === "";
  return isEmpty ? undefined : platformOfJson(node);
}

interface Runnable {
  readonly architecture: string;
  readonly variant: string;
}

function variantsDown(architecture: string, variant: string, lowest: number): Runnable[] {
  const level = Number(/^v([0-9])$/.exec(variant)?.[1] ?? "0");
  const below: Runnable[] = [];
  for (let next = level - 1; next >= lowest; next -= 1) {
    below.push({ architecture, variant: `v${next}` });
  }
  return below;
}

/** What a machine of the platform can run, best first. Source: compare.go, platformVector. */
function runnableOn(platform: Platform): Runnable[] {
  const { architecture, variant } = platform;
  const own: Runnable[] = [{ architecture, variant }];
  if (architecture === "amd64" && variant !== "") {
    return [...own, ...variantsDown("amd64", variant, 2), { architecture, variant: "" }, I386];
  }
  if (architecture === "amd64") return [...own, I386];
  if (architecture === "arm") return [...own, ...variantsDown("arm", variant, 5)];
  if (architecture === "arm64") {
    const plain = variant === "" ? [] : [{ architecture, variant: "" }];
    const arm = { architecture: "arm", variant: "v8" };
    return [...own, ...plain, arm, ...variantsDown("arm", "v8", 5)];
  }
  return own;
}

const I386: Runnable = { architecture: "386", variant: "" };

/**
 * How well a machine of `wanted` runs an image made for `offered`: 0 is best, undefined not at
 * all. The operating system's version is not compared: Linux images have none.
 */
export function platformRank(wanted: Platform, offered: Platform): number | undefined {
  if (wanted.os !== offered.os) return undefined;
  const rank = runnableOn(wanted).findIndex(
    (one) => one.architecture === offered.architecture && one.variant === offered.variant,
  );
  return rank < 0 ? undefined : rank;
}

export function matchesPlatform(wanted: Platform, offered: Platform): boolean {
  return platformRank(wanted, offered) !== undefined;
}

/**
 * The candidates in the order to try them: the best platform first, ties as they stand; those
 * that do not say their platform come last (their config says it).
 */
export function choosePlatform<T>(
  wanted: Platform,
  candidates: readonly { readonly platform: Platform | undefined; readonly value: T }[],
): T[] {
  const ranked: { readonly rank: number; readonly value: T }[] = [];
  for (const { platform, value } of candidates) {
    const rank = platform === undefined ? Number.MAX_SAFE_INTEGER : platformRank(wanted, platform);
    if (rank !== undefined) ranked.push({ rank, value });
  }
  return ranked.sort((a, b) => a.rank - b.rank).map(({ value }) => value);
}

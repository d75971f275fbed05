/**
 * The layer table, and the check that the sources keep to it. The table is also shown in
 * docs/ARCHITECTURE.md; a test compares the two.
 */
import { posix } from "node:path";
import ts from "typescript";
import type { SourceFile } from "./source-files.ts";

/** Which modules (folders of src/) a module may import; bottom first. */
export const LAYERS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  oci: ["base"],
  erofs: ["base"],
  fuse: ["base"],
  control: ["base"],
  block: ["base", "oci"],
  image: ["base", "oci", "erofs", "block"],
  cache: ["base", "block"],
  registry: ["base", "oci"],
  peer: ["base", "oci", "block"],
  keeper: ["base", "control", "erofs", "fuse"],
  rootfs: ["base", "control", "erofs"],
  snapshotter: ["base", "oci"],
  daemon: [
    "base",
    "oci",
    "erofs",
    "control",
    "block",
    "image",
    "cache",
    "registry",
    "peer",
    "rootfs",
    "snapshotter",
  ],
  cli: ["base", "control", "daemon"],
};

/** Imported file by file; every other module only through its door. */
const OPEN_MODULE = "base";

/**
 * Packages with side effects or weight live in one module, behind our own interface. Packages not
 * named here may not be imported at all: a new dependency is a decision (docs/adr/).
 */
export const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  "@grpc/grpc-js": ["snapshotter"],
  "@grpc/proto-loader": ["snapshotter"],
  commander: ["cli"],
  "fuse-native": ["fuse"],
  koffi: ["base"],
  "lru-cache": ["block", "registry", "daemon"],
  pino: ["base"],
  protobufjs: ["control"],
  re2js: ["snapshotter"],
  "smol-toml": ["daemon", "registry"],
  "tar-stream": ["registry"],
  undici: ["registry"],
  zod: ["cli", "daemon"],
};

/** Folders and files that compute only: same input, same output. */
export const PURE_PATHS: readonly string[] = [
  "src/oci/",
  "src/erofs/",
  "src/block/block-table.ts",
  "src/block/run-plan.ts",
  "src/image/tar/",
  "src/image/tree/",
  "src/image/merge/",
  "src/image/layer-map/format.ts",
  "src/peer/membership/",
  "src/peer/tree/",
  "src/snapshotter/filters.ts",
  "src/snapshotter/mounts.ts",
  "src/snapshotter/transitions.ts",
];

/** What pure code may import from others: no clock, socket, file, process or randomness. */
const PURE_IMPORTS = new Set([
  "node:assert",
  "node:buffer",
  "node:crypto",
  "node:path",
  "node:util",
  "node:zlib",
  "re2js",
]);
/** Of those, the names that are not pure after all. */
const IMPURE_NAMES =
  /\b(randomBytes|randomUUID|randomInt|getRandomValues|Math\.random|Date\.now|process\.env|process\.hrtime|performance\.now|setTimeout|setInterval|setImmediate)\b/;
const IMPURE_BASE_FILES = new Set(["clock.ts", "random.ts", "log.ts", "native.ts", "mountinfo.ts"]);

export interface Violation {
  readonly path: string;
  readonly rule: string;
}

/** Every specifier that a file imports: static, type-only, re-exported, dynamic. */
export function importsOf(file: SourceFile): string[] {
  return ts.preProcessFile(file.text, true, true).importedFiles.map(({ fileName }) => fileName);
}

function moduleOf(path: string): string | undefined {
  return /^src\/([^/]+)\//.exec(path)?.[1];
}

/** `@scope/name` or `name` of a package import with or without a path inside. */
function packageName(specifier: string): string {
  return specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
}

function checkInside(from: string, target: string): string | undefined {
  const to = moduleOf(target);
  if (to === undefined) return `imports ${target}: src/ imports nothing outside src/`;
  if (to === from) return undefined;
  const allowed = LAYERS[from] ?? [];
  if (!allowed.includes(to)) return `${from} imports ${to} (${target}): not its layer`;
  if (to !== OPEN_MODULE && target !== `src/${to}/index.ts`) {
    return `imports ${target} past the door src/${to}/index.ts`;
  }
  return undefined;
}

/** Every import of the files of src/ against the table. */
export function checkLayers(files: readonly SourceFile[]): Violation[] {
  const violations: Violation[] = [];
  for (const file of files) {
    const from = moduleOf(file.path);
    if (from === undefined || !Object.hasOwn(LAYERS, from)) {
      violations.push({ path: file.path, rule: "is in no module of the layer table" });
      continue;
    }
    for (const specifier of importsOf(file)) {
      const rule = specifier.startsWith(".")
        ? checkInside(from, posix.join(posix.dirname(file.path), specifier))
        : checkPackage(from, specifier);
      if (rule !== undefined) violations.push({ path: file.path, rule });
    }
  }
  return violations;
}

function checkPackage(from: string, specifier: string): string | undefined {
  if (specifier.startsWith("node:")) return undefined;
  const name = packageName(specifier);
  const homes = Object.hasOwn(PACKAGES, name) ? PACKAGES[name] : undefined;
  if (homes === undefined) return `imports the package ${name}, which the table does not name`;
  return homes.includes(from) ? undefined : `${from} imports the package ${name}: not its home`;
}

/**
 * Modules of the table that are not there, or that others may import and that have no door: a
 * check over nothing passes silently. A process that nobody imports (keeper, cli) has none.
 */
export function missingModules(files: readonly SourceFile[]): string[] {
  const paths = files.map(({ path }) => path);
  const imported = new Set(Object.values(LAYERS).flat());
  return Object.keys(LAYERS).filter((name) =>
    name !== OPEN_MODULE && imported.has(name)
      ? !paths.includes(`src/${name}/index.ts`)
      : !paths.some((path) => path.startsWith(`src/${name}/`)),
  );
}

/** What the tables allow and no file needs: `cache -> oci`, `cache -> zod`. */
export function idlePermissions(files: readonly SourceFile[]): string[] {
  const needed = new Set(
    files.flatMap((file) => {
      const from = moduleOf(file.path) ?? "";
      return importsOf(file).map((specifier) => {
        const target = posix.join(posix.dirname(file.path), specifier);
        const to = specifier.startsWith(".") ? moduleOf(target) : packageName(specifier);
        return `${from} -> ${to ?? ""}`;
      });
    }),
  );
  const allowed = [
    ...Object.entries(LAYERS).flatMap(([from, list]) => list.map((to) => `${from} -> ${to}`)),
    ...Object.entries(PACKAGES).flatMap(([name, homes]) =>
      homes.map((from) => `${from} -> ${name}`),
    ),
  ];
  return allowed.filter((permission) => !needed.has(permission));
}

/** Pure code against what it may import and name. */
export function checkPure(files: readonly SourceFile[], purePaths = PURE_PATHS): Violation[] {
  const violations: Violation[] = [];
  for (const purePath of purePaths) {
    const matching = files.filter(({ path }) =>
      purePath.endsWith("/") ? path.startsWith(purePath) : path === purePath,
    );
    if (matching.length === 0) violations.push({ path: purePath, rule: "is named but not there" });
    for (const file of matching) violations.push(...checkPureFile(file));
  }
  return violations;
}

function checkPureFile(file: SourceFile): Violation[] {
  const rules: string[] = [];
  // A type is nothing at run time.
  const text = file.text.replaceAll(/^import type [^;]*;/gm, "");
  for (const specifier of importsOf({ path: file.path, text })) {
    const isBase = specifier.includes("/base/");
    if (specifier.startsWith(".")) {
      if (isBase && IMPURE_BASE_FILES.has(posix.basename(specifier))) {
        rules.push(`pure code imports ${specifier}`);
      }
    } else if (!PURE_IMPORTS.has(specifier)) {
      rules.push(`pure code imports ${specifier}`);
    }
  }
  const named = IMPURE_NAMES.exec(file.text.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, ""));
  if (named !== null) rules.push(`pure code uses ${named[0]}`);
  return rules.map((rule) => ({ path: file.path, rule }));
}

/** A circle in the table itself, or undefined. */
export function findCycle(layers: Readonly<Record<string, readonly string[]>>): string | undefined {
  const done = new Set<string>();
  const visit = (name: string, above: readonly string[]): string | undefined => {
    if (above.includes(name)) return [...above, name].join(" -> ");
    if (done.has(name)) return undefined;
    done.add(name);
    for (const next of layers[name] ?? []) {
      const cycle = visit(next, [...above, name]);
      if (cycle !== undefined) return cycle;
    }
    return undefined;
  };
  for (const name of Object.keys(layers)) {
    const cycle = visit(name, []);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

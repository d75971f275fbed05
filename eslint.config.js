/**
 * Lint rules: typescript-eslint's strict type-checked set, and the house rules of CONTRIBUTING.md
 * written as stock ESLint rules. Formatting is Prettier's; layers are test/unit/layers.test.ts's.
 */
import { builtinModules } from "node:module";
import js from "@eslint/js";
import tseslint from "typescript-eslint";

/** The only readers of time, randomness and timers. Everything else is handed a Clock or Random. */
const CLOCK_FILES = ["src/base/clock.ts", "src/base/random.ts"];
/** The only readers of the environment. */
const ENVIRONMENT_FILES = ["src/daemon/config*.ts", "src/daemon/environment.ts"];
/** The entry points of processes: the only callers of process.exit. */
const ENTRY_FILES = [
  "src/cli/main.ts",
  "src/**/*-main.ts",
  "src/**/*-process.ts",
  "src/**/*-worker.ts",
  "src/**/*-child.ts",
  "src/daemon/child-job.ts",
];
/**
 * Files that run before the event loop has anything else to do, or (the probe) in a process that
 * has nothing else to do: sync file calls are right.
 */
const STARTUP_FILES = [
  "src/fuse/probe-process.ts",
  "src/base/package-root.ts",
  "src/control/codec.ts",
  "src/cli/version.ts",
];

const EVERYWHERE = [
  {
    selector: "ExportDefaultDeclaration",
    message: "Named exports only: a name is the same everywhere.",
  },
  {
    selector: "TSEnumDeclaration",
    message: "No enum: use a union of string literals, or an `as const` table.",
  },
  {
    selector: "TSParameterProperty",
    message: "No parameter properties: declare the field.",
  },
  {
    selector:
      "PropertyDefinition[accessibility], MethodDefinition[accessibility]:not([kind='constructor'])",
    message: "No accessibility keywords: `#name` is private, everything else is public.",
  },
  {
    selector: "NewExpression[callee.name=/^Mock/], ClassDeclaration[id.name=/^Mock/]",
    message: "Test doubles are Fake… (behaves) or Sim… (simulated world).",
  },
];

const WALL_TIME = [
  {
    selector: "NewExpression[callee.name='Date'][arguments.length=0]",
    message: "Time comes from base/clock.ts (Clock.wallNs).",
  },
];

/** Method calls such as `fs.readFileSync(…)`; named imports are covered by RESTRICTED_IMPORTS. */
const SYNC_CALLS = [
  {
    selector:
      "CallExpression[callee.type='MemberExpression'][callee.object.name=/^(fs|childProcess)$/]" +
      "[callee.property.name=/Sync$/]",
    message: "A sync file call stops every reader of every image: use node:fs/promises.",
  },
];

const TIMERS = [
  { name: "setTimeout", message: "Use Clock.sleep or Clock.timer of base/clock.ts." },
  { name: "setInterval", message: "Use Clock.timer of base/clock.ts." },
];

const PROPERTIES = {
  now: { object: "Date", property: "now", message: "Time comes from base/clock.ts." },
  performance: { object: "performance", property: "now", message: "Use Clock.nowMs." },
  hrtime: { object: "process", property: "hrtime", message: "Time comes from base/clock.ts." },
  random: { object: "Math", property: "random", message: "Use Random of base/random.ts." },
  env: {
    object: "process",
    property: "env",
    message: "Only daemon/config reads the environment; everything else gets options.",
  },
  exit: {
    object: "process",
    property: "exit",
    message: "Only a process's entry file ends it; elsewhere throw, or dispose the scope.",
  },
};

const NODE_PREFIX = builtinModules
  .filter((name) => !name.startsWith("_") && !name.startsWith("node:"))
  .map((name) => ({ name, message: `Write node:${name}.` }));

const IMPORT_PATTERNS = [
  {
    regex: "^\\.{1,2}/(?!.*\\.(ts|json)$)",
    message: "Relative imports name the file, with its `.ts`.",
  },
  { regex: "(^|/)node_modules/", message: "Import the package by its name." },
];

const TIMER_IMPORTS = [
  {
    regex: "^node:timers(/promises)?$",
    importNamePattern: "^(setTimeout|setInterval|scheduler)$",
    message: "Use Clock of base/clock.ts.",
  },
  { regex: "^node:process$", message: "`process` is a global; its use is checked there." },
];

const SYNC_IMPORTS = [
  {
    regex: "^node:fs$",
    importNamePattern: "Sync$",
    message: "A sync file call stops every reader of every image: use node:fs/promises.",
  },
  {
    regex: "^node:child_process$",
    importNamePattern: "Sync$",
    message: "A sync process call stops every reader of every image: use execFile or spawn.",
  },
];

const syntax = (...lists) => ["error", ...lists.flat()];
const imports = (...lists) => ["error", { paths: NODE_PREFIX, patterns: lists.flat() }];

const TYPED_RULES = {
  "@typescript-eslint/switch-exhaustiveness-check": [
    "error",
    { considerDefaultExhaustiveForUnions: true },
  ],
  "@typescript-eslint/return-await": ["error", "in-try-catch"],
  "@typescript-eslint/restrict-template-expressions": [
    "error",
    { allowNumber: true, allowBoolean: true },
  ],
  "@typescript-eslint/consistent-type-imports": [
    "error",
    // `import("x").T` is the only way to name a type of a package that is loaded late.
    { fixStyle: "separate-type-imports", disallowTypeAnnotations: false },
  ],
  // A failure that is kept and thrown later is `unknown`, as every caught value.
  "@typescript-eslint/only-throw-error": ["error", { allowThrowingUnknown: true }],
  "@typescript-eslint/explicit-module-boundary-types": "error",
  "@typescript-eslint/prefer-readonly": "error",
  // Together: what returns a promise is `async`, so that it rejects and never throws.
  "@typescript-eslint/promise-function-async": ["error", { checkArrowFunctions: false }],
  "@typescript-eslint/require-await": "off",
  "@typescript-eslint/no-shadow": "error",
  // An abort reason is typed `any` by the library; ours are DaemonErrors (base/abort.ts).
  "@typescript-eslint/prefer-promise-reject-errors": ["error", { allowThrowingUnknown: true }],
  "@typescript-eslint/no-unused-vars": [
    "error",
    { argsIgnorePattern: "^_", varsIgnorePattern: "^_", caughtErrorsIgnorePattern: "^_" },
  ],
};

const HOUSE_RULES = {
  eqeqeq: "error",
  "no-console": "error",
  "no-empty": ["error", { allowEmptyCatch: false }],
  "no-var": "error",
  "prefer-const": "error",
  "object-shorthand": "error",
  // A generator that implements an interface may have nothing to yield.
  "require-yield": "off",
  "no-restricted-imports": imports(IMPORT_PATTERNS, TIMER_IMPORTS, SYNC_IMPORTS),
  "no-restricted-syntax": syntax(EVERYWHERE, WALL_TIME, SYNC_CALLS),
  "no-restricted-globals": ["error", ...TIMERS],
  "no-restricted-properties": ["error", ...Object.values(PROPERTIES)],
  "max-lines": ["error", { max: 500 }],
  "max-lines-per-function": ["error", { max: 70, skipBlankLines: true, skipComments: true }],
};

const without = (...names) => [
  "error",
  ...Object.entries(PROPERTIES)
    .filter(([name]) => !names.includes(name))
    .map(([, entry]) => entry),
];

export default tseslint.config(
  { ignores: ["dist/", ".build/", ".lab/", ".ci/", "node_modules/", "**/*.d.ts"] },
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  js.configs.recommended,
  {
    files: ["src/**/*.ts", "test/**/*.ts", "bench/**/*.ts", "scripts/**/*.ts"],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    rules: { ...TYPED_RULES, ...HOUSE_RULES },
  },
  {
    files: CLOCK_FILES,
    rules: {
      "no-restricted-globals": "off",
      "no-restricted-properties": without("now", "performance", "hrtime", "random"),
      "no-restricted-syntax": syntax(EVERYWHERE, SYNC_CALLS),
    },
  },
  { files: ENVIRONMENT_FILES, rules: { "no-restricted-properties": without("env") } },
  { files: ENTRY_FILES, rules: { "no-restricted-properties": without("exit") } },
  {
    files: STARTUP_FILES,
    rules: {
      "no-restricted-imports": imports(IMPORT_PATTERNS, TIMER_IMPORTS),
      "no-restricted-syntax": syntax(EVERYWHERE, WALL_TIME),
    },
  },
  { files: ["src/cli/**"], rules: { "no-console": "off" } },
  {
    // Tests and tools own their process: real time, environment and sync calls are theirs to use.
    files: ["test/**/*.ts", "bench/**/*.ts", "scripts/**/*.ts"],
    rules: {
      "no-console": "off",
      "no-restricted-globals": "off",
      "no-restricted-imports": imports(IMPORT_PATTERNS),
      "no-restricted-properties": ["error", PROPERTIES.random],
      "no-restricted-syntax": syntax(EVERYWHERE),
      "max-lines-per-function": "off",
      "@typescript-eslint/explicit-module-boundary-types": "off",
      "@typescript-eslint/promise-function-async": "off",
      "@typescript-eslint/no-empty-function": "off",
    },
  },
  {
    // A benchmark or a script is a program: it may end its process and time itself.
    files: ["bench/**/*.ts", "scripts/**/*.ts"],
    rules: { "max-lines": ["error", { max: 700 }] },
  },
  {
    // Plain JavaScript; ESLint asks for a default export.
    files: ["eslint.config.js", "bin/faasnet", "scripts/**/*.js"],
    extends: [tseslint.configs.disableTypeChecked],
    languageOptions: { globals: { process: "readonly", console: "readonly", URL: "readonly" } },
  },
);

/** Rules over the text of the project's files: what no compiler or linter looks at. */
import { posix } from "node:path";
import type { SourceFile } from "./source-files.ts";

export const LINE_COLUMNS_MAX = 100;
export const CODE_COLUMNS_MAX = 140;
export const FILE_LINES_MAX = 500;
export const FILE_BYTES_MAX = 1024 * 1024;

/** Hosts that a text may name in a URL: specifications, the project's neighbours, examples. */
const URL_HOSTS: readonly RegExp[] = [
  /^(localhost|\d+(\.\d+){3}|\[[\da-f:.]+\])$/,
  /(^|\.)(example|invalid|test|localhost)$/,
  /(^|\.)example\.(com|org|net)$/,
  /^(github\.com|www\.apache\.org|kubernetes\.io|www\.usenix\.org|man7\.org|docs\.kernel\.org)$/,
  /^(www\.rfc-editor\.org|json\.schemastore\.org|opencontainers\.org|erofs\.docs\.kernel\.org)$/,
  /^(index\.docker\.io|auth\.docker\.io|registry-1\.docker\.io|docker\.io|quay\.io|ghcr\.io)$/,
];
/** Names made up in tests: one label, or dots without a public ending (`http://registry:5000`). */
const MADE_UP_HOST = /^[a-z0-9-]+$|\.(internal|local|lan)$/;

const VAGUE_NAMES = /^(utils?|helpers?|common|types|managers?|misc|stuff)\.(ts|js)$/;
const LEFTOVER_NAMES =
  /(\.(orig|rej|bak|swp|log|tmp|heapsnapshot|cpuprofile)|~)$|^(core|nohup\.out)$/;

/** The classes of one letter keep this line from being a match itself. */
const WORK_LEFT = /\b(TOD[O]|FIXM[E]|XX[X]|HAC[K])\b(?!\(#\d+\))/;

type Rule = (file: SourceFile) => string[];

/** One line of complaint for each line of the file that `test` objects to. */
function perLine(test: (line: string) => string | undefined): Rule {
  return ({ text }) =>
    text.split("\n").flatMap((line, index) => {
      const complaint = test(line);
      return complaint === undefined ? [] : [`line ${index + 1} ${complaint}`];
    });
}

/** A test's own names say what it is; some open with a comment on their method. */
const opensWithDocComment: Rule = ({ path, text }) =>
  path.endsWith(".test.ts") || /^(#!.*\n)?\/\*\*/.test(text)
    ? []
    : ["does not open with a doc comment that says what it is"];

const isShort: Rule = ({ text }) => {
  const lines = text.split("\n").length - 1;
  return lines > FILE_LINES_MAX ? [`has ${lines} lines, over ${FILE_LINES_MAX}`] : [];
};

/**
 * Prettier wraps code at LINE_COLUMNS_MAX but cannot break a string or a pattern; comments are ours
 * to break. A line without any blank (a digest, a fixture) is left alone.
 */
const hasShortLines = perLine((line) => {
  const columns = Array.from(line).length;
  const isComment = /^\s*(\/\/|\/?\*)/.test(line);
  const columnsMax = isComment ? LINE_COLUMNS_MAX : CODE_COLUMNS_MAX;
  if (columns <= columnsMax || !/\S\s+\S.*\s\S/.test(line.trim())) return undefined;
  return `has ${columns} columns, over ${columnsMax}`;
});

const namesIssueWithTodo = perLine((line) =>
  WORK_LEFT.test(line) ? "says that work is left without `(#issue)`" : undefined,
);

const explainsDisabling = perLine((line) =>
  /(eslint-disable|@ts-(ignore|expect-error|nocheck)|prettier-ignore)(?!.* -- \S)/.test(line)
    ? "switches a check off without ` -- reason`"
    : undefined,
);

const hasNoLeftovers = perLine((line) => {
  if (/^(<{7}|={7}|>{7})( |$)/.test(line)) return "is a merge conflict's";
  if (/\b(describe|it|context|specify)\.only\(/.test(line)) return "runs only one test";
  return /^\s*debugger;/.test(line) ? "stops in a debugger" : undefined;
});

const URL_PATTERN =
  /\b(?:https?|wss?):\/\/(?:[^\s/@"'`<>)\]}]+@)?(\[[^\]]*\]|[^\s/:"'`<>)\]}\\,;$]+)/g;

const namesKnownHosts = perLine((line) => {
  for (const [, host = ""] of line.matchAll(URL_PATTERN)) {
    const name = host.toLowerCase().replace(/\.$/, "");
    if (!/^[\w.-]+$|^\[[\da-f:.]+\]$/.test(name)) continue; // built at run time
    if (!URL_HOSTS.some((pattern) => pattern.test(name)) && !MADE_UP_HOST.test(name)) {
      return `names the host ${host}`;
    }
  }
  return undefined;
});

/** A lock file with addresses in it would fetch from one machine's mirror. */
const hasNoResolvedAddresses = perLine((line) =>
  /"resolved":(?! "https:\/\/registry\.npmjs\.org\/)/.test(line)
    ? "fixes where a package is fetched from"
    : undefined,
);

const isNamedWell: Rule = ({ path }) => {
  const name = posix.basename(path);
  if (VAGUE_NAMES.test(name)) return ["has a name that says nothing"];
  return /^[a-z0-9.-]+$/.test(name) ? [] : ["is not named in kebab-case"];
};

/** Lines outside fenced code. */
function proseLines(text: string): string[] {
  let isFenced = false;
  return text.split("\n").filter((line) => {
    if (/^\s*```/.test(line)) {
      isFenced = !isFenced;
      return false;
    }
    return !isFenced;
  });
}

const hasOneTitle: Rule = ({ text }) => {
  const titles = proseLines(text).filter((line) => line.startsWith("# ")).length;
  return titles === 1 ? [] : [`has ${titles} titles (\`# \`), not one`];
};

/** Relative links of a document, as paths from the package's root. */
export function linksOf({ path, text }: SourceFile): string[] {
  const links: string[] = [];
  for (const line of proseLines(text)) {
    for (const [, target = ""] of line.replaceAll(/`[^`]*`/g, "").matchAll(/\]\(([^)\s]+)\)/g)) {
      const file = target.split("#")[0] ?? "";
      if (file !== "" && !/^[a-z]+:/.test(file)) {
        links.push(posix.join(posix.dirname(path), file).replace(/\/$/, ""));
      }
    }
  }
  return links;
}

const PROGRAM_RULES: readonly Rule[] = [
  opensWithDocComment,
  isShort,
  hasShortLines,
  explainsDisabling,
  isNamedWell,
];
const TEXT_RULES: readonly Rule[] = [namesIssueWithTodo, hasNoLeftovers, namesKnownHosts];

function rulesOf(path: string): readonly Rule[] {
  const name = posix.basename(path);
  if (LEFTOVER_NAMES.test(name)) return [() => ["is a leftover"]];
  if (name === "package-lock.json") return [hasNoResolvedAddresses];
  if (path.startsWith("proto/github.com/") || path.startsWith("proto/vendor/")) return [];
  if (path.startsWith("test/fixtures/") || name === "LICENSE") return [];
  if (path.endsWith(".ts") || path.endsWith(".js")) return [...PROGRAM_RULES, ...TEXT_RULES];
  return path.endsWith(".md") ? [hasOneTitle, ...TEXT_RULES] : TEXT_RULES;
}

/** What is wrong with a file; empty when it is tidy. */
export function complaints(file: SourceFile): string[] {
  return rulesOf(file.path).flatMap((rule) => rule(file));
}

/**
 * Files of src/ that no process can reach: neither imported, from the entry points on, nor named
 * in a string (a child process's program) of a file that can be reached.
 */
export function unreached(
  files: readonly SourceFile[],
  importsOf: (file: SourceFile) => string[],
  entries: readonly string[],
): string[] {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const reached = new Set<string>();
  const queue = [...entries];
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    const file = byPath.get(path);
    if (file === undefined || reached.has(path)) continue;
    reached.add(path);
    for (const specifier of importsOf(file)) {
      if (specifier.startsWith(".")) queue.push(posix.join(posix.dirname(path), specifier));
    }
    for (const other of files) {
      const name = posix.basename(other.path, ".ts");
      if (name === "index") continue; // a module's door: every import of any door names it
      if (new RegExp(`["'\`/]${name}\\.(ts|js)["'\`]`).test(file.text)) queue.push(other.path);
    }
  }
  return files.map(({ path }) => path).filter((path) => !reached.has(path));
}

/** Structured logs: one JSON object a line on stderr, `event` a kebab-case constant. */
import { pino } from "pino";
import { errorCode, errorMessage } from "./errors.ts";

export type LogLevel = "error" | "warn" | "info" | "debug";
export const LOG_LEVELS: readonly LogLevel[] = ["error", "warn", "info", "debug"];
export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  /** A person must act. */
  error(event: string, fields?: LogFields): void;
  /** Served, but degraded. */
  warn(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  /** Per request; may hold paths and references. */
  debug(event: string, fields?: LogFields): void;
  child(fields: LogFields): Logger;
}

/** Where the lines go; pino's own file destination by default. */
export interface LogSink {
  write(line: string): void;
}

const REDACTED = "[redacted]";
const SECRET_KEY =
  /^(authorization|cookie|password|passwd|secret|token|identity_?token|\w*_token)$/i;
/**
 * Secrets inside text: HTTP credentials, the user part of a URL, and the signed query parameters
 * that storage services put into redirects (a blob's URL is a bearer credential).
 */
const SECRET_TEXT: readonly (readonly [RegExp, string])[] = [
  [/\b([Bb]earer|[Bb]asic)\s+(?=\S*[A-Z0-9=]|\S*\.\w)[\w.~+/=-]{4,}/g, `$1 ${REDACTED}`],
  [/(:\/\/)[^\s/@?#]+@/g, `$1${REDACTED}@`],
  [
    /([?&](?:[\w-]*signature|[\w-]*token|[\w-]*credential|key-pair-id|sig|se?cret|password)=)[^&\s"']+/gi,
    `$1${REDACTED}`,
  ],
];

/** Text that is safe to log or show. */
export function redactText(text: string): string {
  let safe = text;
  for (const [pattern, replacement] of SECRET_TEXT) safe = safe.replace(pattern, replacement);
  return safe;
}

/** Levels of nested fields that are looked through for secrets. */
const REDACT_DEPTH_MAX = 4;

function redact(value: unknown, depth: number): unknown {
  if (typeof value === "string") return redactText(value);
  if (depth === 0 || typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((one: unknown) => redact(one, depth - 1));
  if (Object.getPrototypeOf(value) !== Object.prototype) return value;
  return redactFields(value, depth - 1);
}

function redactFields(fields: object, depth: number): Record<string, unknown> {
  const safe: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(fields)) {
    safe[key] = SECRET_KEY.test(key) ? REDACTED : redact(value, depth);
  }
  return safe;
}

/** `err` fields are flattened to code and message: a stack or a dumped object may hold secrets. */
function prepare(event: string, fields: LogFields): Record<string, unknown> {
  const { err, ...rest } = fields;
  const safe = { event, ...redactFields(rest, REDACT_DEPTH_MAX) };
  if (err === undefined) return safe;
  return { ...safe, err: { code: errorCode(err), message: redactText(errorMessage(err)) } };
}

function wrap(sink: pino.Logger): Logger {
  return {
    error: (event, fields = {}) => {
      if (sink.isLevelEnabled("error")) sink.error(prepare(event, fields));
    },
    warn: (event, fields = {}) => {
      if (sink.isLevelEnabled("warn")) sink.warn(prepare(event, fields));
    },
    info: (event, fields = {}) => {
      if (sink.isLevelEnabled("info")) sink.info(prepare(event, fields));
    },
    debug: (event, fields = {}) => {
      if (sink.isLevelEnabled("debug")) sink.debug(prepare(event, fields));
    },
    child: (fields) => wrap(sink.child(redactFields(fields, REDACT_DEPTH_MAX))),
  };
}

/** A logger that writes to stderr (file descriptor 2), or to `sink`. */
export function createLogger(level: LogLevel, fields: LogFields = {}, sink?: LogSink): Logger {
  const options = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    // Pino's own would add the stack.
    serializers: { err: (flattened: unknown) => flattened },
    formatters: { level: (label: string) => ({ level: label }) },
  };
  const destination = sink ?? pino.destination({ fd: 2, sync: true });
  return wrap(pino(options, destination)).child(fields);
}

export const silentLogger: Logger = {
  error: () => undefined,
  warn: () => undefined,
  info: () => undefined,
  debug: () => undefined,
  child: () => silentLogger,
};

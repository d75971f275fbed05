/**
 * The daemon's configuration: a TOML file whose keys are the snake_case of the fields below.
 * Every key has a default; an unknown key is an error. `faasnet config default` prints the file
 * with its comments (config-file.ts).
 */
import { readFile } from "node:fs/promises";
import { parse as parseToml } from "smol-toml";
import { z } from "zod";
import { DaemonError, systemErrorName, withContext } from "../base/errors.ts";
import { LOG_LEVELS } from "../base/log.ts";

export const DEFAULT_ROOT = "/var/lib/faasnet";
export const DEFAULT_STATE = "/run/faasnet";
export const DEFAULT_CONFIG_FILE = "/etc/faasnet/config.toml";
export const DEFAULT_CONTAINERD_ADDRESS = "/run/containerd/containerd.sock";

/** How images may be mounted: `auto` is what the self-test finds best. */
export const MODE_SETTINGS = ["auto", "erofs", "loop", "fuse"] as const;
export type ModeSetting = (typeof MODE_SETTINGS)[number];

const MIB = 1024 * 1024;
const absolutePath = z.string().startsWith("/", "must be an absolute path");
const count = (max: number): z.ZodInt => z.int().min(1).max(max);
const bytes = z.int().min(0);
const port = z.int().min(0).max(65_535);
/** As the membership protocol carries them. */
const PEER_NAME_CHARACTERS_MAX = 128;
const PEER_ZONE_CHARACTERS_MAX = 32;
const PEER_SEEDS_MAX = 64;

const configSchema = z.strictObject({
  root: absolutePath.default(DEFAULT_ROOT),
  state: absolutePath.default(DEFAULT_STATE),
  /** Empty: STATE/faasnet.sock. */
  address: z.union([z.literal(""), absolutePath]).default(""),
  containerdAddress: z.union([z.literal(""), absolutePath]).default(""),
  logLevel: z.enum(LOG_LEVELS).default("info"),
  mount: z.strictObject({ mode: z.enum(MODE_SETTINGS).default("auto") }).prefault({}),
  cache: z
    .strictObject({
      quotaBytes: bytes.default(32 * 1024 * MIB),
      minFreeBytes: bytes.default(1024 * MIB),
      memoryBytes: bytes.default(8 * MIB),
      keepBlobs: z.boolean().default(false),
    })
    .prefault({}),
  background: z
    .strictObject({
      enabled: z.boolean().default(true),
      delaySeconds: z.int().min(0).max(86_400).default(30),
      rateBytesPerSecond: z
        .int()
        .min(MIB)
        .default(50 * MIB),
    })
    .prefault({}),
  registry: z
    .strictObject({
      hostsDir: absolutePath.default("/etc/containerd/certs.d"),
      dockerConfigDir: z.union([z.literal(""), absolutePath]).default(""),
      /** Registries with a port that containerd's label cannot name (its port is lost there). */
      knownHosts: z.array(z.string()).max(64).default([]),
    })
    .prefault({}),
  read: z.strictObject({ limitSeconds: z.int().min(1).max(3600).default(120) }).prefault({}),
  maps: z.strictObject({ builders: count(64).default(2) }).prefault({}),
  peer: z
    .strictObject({
      enabled: z.boolean().default(false),
      /** Empty: the host's name. */
      name: z.string().max(PEER_NAME_CHARACTERS_MAX).default(""),
      /** Empty only when peers are off. */
      keyFile: z.union([z.literal(""), absolutePath]).default(""),
      bind: z.string().default("0.0.0.0:7411"),
      /** Empty: the address that the route to the first seed begins with. */
      advertise: z.string().default(""),
      /** 0: the port of `bind`. */
      exchangePort: port.default(0),
      seeds: z.array(z.string().min(1)).max(PEER_SEEDS_MAX).default([]),
      zone: z.string().max(PEER_ZONE_CHARACTERS_MAX).default(""),
      preset: z.enum(["lan", "local"]).default("lan"),
      /** A loopback address for plain OCI clients of this machine; empty: none. */
      mirror: z.string().default(""),
      /** 0: the registry is asked each time. */
      tagTtlSeconds: z.int().min(0).max(86_400).default(30),
      /** 0: no limit. */
      uploadBytesPerSecond: bytes.default(0),
    })
    .refine((peer) => !peer.enabled || peer.keyFile !== "", {
      message: "key_file must be set when peers are enabled",
    })
    .prefault({}),
});

export type Config = z.infer<typeof configSchema>;

export interface ConfigOverrides {
  readonly root?: string | undefined;
  readonly state?: string | undefined;
  readonly address?: string | undefined;
  readonly mode?: ModeSetting | undefined;
}

export interface LoadConfigOptions {
  /** Read this file; it must exist. Undefined: the default file where there is one. */
  readonly file?: string | undefined;
  readonly overrides?: ConfigOverrides;
}

/** Throws `invalid-argument` with all mistakes of the file at once. */
export async function loadConfig(options: LoadConfigOptions = {}): Promise<Config> {
  const raw = await readConfigFile(options.file);
  const config = parseConfig(raw.text, raw.file);
  const overrides = options.overrides ?? {};
  return resolveDefaults({
    ...config,
    root: overrides.root ?? config.root,
    state: overrides.state ?? config.state,
    address: overrides.address ?? config.address,
    mount: { mode: overrides.mode ?? config.mount.mode },
  });
}

/** Parses a configuration file's text; `file` names it in messages. */
export function parseConfig(text: string, file: string): Config {
  let table: unknown;
  try {
    table = parseToml(text);
  } catch (error) {
    throw withContext(error, `${file} is not valid TOML`, "invalid-argument");
  }
  const result = configSchema.safeParse(camelKeys(table));
  if (result.success) return result.data;
  const mistakes = result.error.issues.map((issue) => describeIssue(issue));
  throw new DaemonError("invalid-argument", `${file}: ${mistakes.join("; ")}`);
}

/** The configuration as one role hands it to another: complete, in JSON. */
export function parseResolvedConfig(value: unknown): Config {
  return configSchema.parse(value);
}

/** What the environment decides where the file is silent; the one reader of process.env. */
function resolveDefaults(config: Config): Config {
  const home = process.env["HOME"] ?? "/root";
  const address =
    config.containerdAddress === ""
      ? (process.env["CONTAINERD_ADDRESS"] ?? DEFAULT_CONTAINERD_ADDRESS)
      : config.containerdAddress;
  const dockerConfigDir = process.env["DOCKER_CONFIG"] ?? `${home}/.docker`;
  return {
    ...config,
    address: config.address === "" ? `${config.state}/faasnet.sock` : config.address,
    containerdAddress: address.replace(/^unix:\/\//, ""),
    registry: {
      ...config.registry,
      dockerConfigDir:
        config.registry.dockerConfigDir === "" ? dockerConfigDir : config.registry.dockerConfigDir,
    },
  };
}

async function readConfigFile(file: string | undefined): Promise<{ text: string; file: string }> {
  const path = file ?? DEFAULT_CONFIG_FILE;
  try {
    return { text: await readFile(path, "utf8"), file: path };
  } catch (error) {
    if (file === undefined && systemErrorName(error) === "ENOENT") return { text: "", file: path };
    throw withContext(error, `cannot read the configuration file ${path}`, "not-found");
  }
}

function camelKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(camelKeys);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [
      key.replace(/_([a-z])/g, (_all, letter: string) => letter.toUpperCase()),
      camelKeys(inner),
    ]),
  );
}

export function snakeKey(field: string): string {
  return field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function describeIssue(issue: z.core.$ZodIssue): string {
  const path = issue.path.map((part) => snakeKey(String(part))).join(".");
  if (issue.code !== "unrecognized_keys") return `${path}: ${issue.message}`;
  const section = path === "" ? "" : `[${path}] `;
  return `${section}unknown key ${issue.keys.map(snakeKey).join(", ")}`;
}

/** What the process environment decides; with config.ts the only reader of process.env. */
import { DEFAULT_REGISTRY_OPTIONS } from "../registry/index.ts";
import type { RegistryOptions } from "../registry/index.ts";
import type { Config } from "./config.ts";

export const USER_AGENT = "faasnet-snapshotter";

function either(name: string): string | undefined {
  return process.env[name.toUpperCase()] ?? process.env[name.toLowerCase()];
}

/** Proxies, CA bundle and credential helpers are the environment's, as for every Go client. */
export function registryOptions(config: Config): RegistryOptions {
  const helperEnvironment = Object.fromEntries(
    Object.entries(process.env).flatMap(([key, value]) =>
      value === undefined ? [] : [[key, value]],
    ),
  );
  return {
    ...DEFAULT_REGISTRY_OPTIONS,
    hostsDirs: [config.registry.hostsDir],
    dockerConfigDir: config.registry.dockerConfigDir,
    helperEnvironment: { ...DEFAULT_REGISTRY_OPTIONS.helperEnvironment, ...helperEnvironment },
    proxy: {
      httpProxy: either("http_proxy"),
      httpsProxy: either("https_proxy"),
      noProxy: either("no_proxy"),
    },
    systemCaFile: process.env["SSL_CERT_FILE"],
    userAgent: USER_AGENT,
  };
}

/** For the roles and jobs that this process starts. */
export function childEnvironment(extra: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  return { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", ...process.env, ...extra };
}

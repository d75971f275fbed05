/** What registries answer in headers, and the files that say how to reach them. */
import { chooseScheme, parseChallenges } from "../../../src/registry/challenge.ts";
import { parseContentRange, parseLength } from "../../../src/registry/content-range.ts";
import { parseDockerConfig, parseHelperAnswer } from "../../../src/registry/docker-config.ts";
import { parseHostsToml } from "../../../src/registry/hosts-toml.ts";
import { textOf } from "../target.ts";
import type { FuzzTarget } from "../target.ts";

const HOSTS = `server = "https://registry.example"

[host."https://mirror.example:8443/v2/prefix"]
  capabilities = ["pull", "resolve"]
  ca = ["mirror.crt", "/etc/other.crt"]
  client = [["client.cert", "client.key"]]
  skip_verify = false
  override_path = true
  dial_timeout = "3s"
  [host."https://mirror.example:8443/v2/prefix".header]
    x-one = "1"
    x-many = ["a", "b"]

[host."http://127.0.0.1:5000"]
  capabilities = ["pull"]
`;

const HOSTS_TOML: FuzzTarget = {
  name: "hosts-toml",
  seeds: () => [Buffer.from(HOSTS), Buffer.from('host."a" = { "ca" = """x""" }\n# note\n')],
  run: (bytes) => {
    parseHostsToml(textOf(bytes), { baseDir: "/etc/containerd/certs.d/registry.example" });
  },
};

const DOCKER_CONFIG: FuzzTarget = {
  name: "docker-config",
  seeds: () => [
    Buffer.from(
      JSON.stringify({
        auths: {
          "https://index.docker.io/v1/": { auth: "dXNlcjpwYXNz" },
          "registry.example:5000": { username: "user", password: "pass" },
          "other.example": { identitytoken: "token", registrytoken: "token" },
        },
        credHelpers: { "ghcr.io": "secretservice" },
        credsStore: "pass",
      }),
    ),
    Buffer.from('{"ServerURL":"x","Username":"<token>","Secret":"s"}'),
  ],
  run: (bytes) => {
    parseHelperAnswer(bytes);
    parseDockerConfig(bytes);
  },
};

const CHALLENGE: FuzzTarget = {
  name: "challenge",
  seeds: () =>
    [
      'Bearer realm="https://auth.docker.io/token",service="registry",scope="repository:a/b:pull"',
      'Basic realm="x", Bearer realm=https://auth.example/t,error="invalid_token"',
      'Negotiate abc==, bearer realm="a\\"b" , ,=,',
    ].map((text) => Buffer.from(text)),
  run: (bytes) => {
    const headers = textOf(bytes).split("\n");
    for (const header of headers) parseChallenges(header);
    chooseScheme(headers);
  },
};

const CONTENT_RANGE: FuzzTarget = {
  name: "content-range",
  seeds: () => ["bytes 0-99/1000", "bytes 100-199/*", "1234"].map((text) => Buffer.from(text)),
  inputBytesMax: 1024,
  run: (bytes) => {
    const range = parseContentRange(textOf(bytes));
    if (range !== undefined && range.start >= range.end) throw new Error("range without bytes");
    const length = parseLength(textOf(bytes));
    if (length !== undefined && !Number.isSafeInteger(length)) throw new Error("unsafe length");
  },
};

export const REGISTRY_TARGETS: readonly FuzzTarget[] = [
  HOSTS_TOML,
  DOCKER_CONFIG,
  CHALLENGE,
  CONTENT_RANGE,
];

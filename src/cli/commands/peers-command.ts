/**
 * `faasnet peers`: who is in the cluster, what keeps members apart, and ways in for other
 * clients.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { withContext } from "../../base/errors.ts";
import type { CertificateReport, PeerProblemKind, PeersReport } from "../../daemon/index.ts";
import { addCommand, connectDaemon, jsonOption, printJson } from "../command-context.ts";
import type { CommandContext, JsonOptions, PlaceOptions } from "../command-context.ts";
import { formatCount, formatDuration, formatFields, formatTable } from "../format.ts";

const PROBLEMS = new Map<string, string>(
  Object.entries({
    "wrong-key": "wrong key",
    "key-unknown-there": "our key is unknown there",
    "duplicate-name": "duplicate name",
    "clock-skew": "skewed clock",
    "udp-blocked": "blocked UDP",
    "tcp-blocked": "blocked TCP",
    "seed-silent": "silent seed",
    "seed-unresolved": "seed not found",
    "other-version": "no common wire version",
    "key-file": "key file",
    cloned: "copied machine",
    "members-full": "too many members",
  } satisfies Record<PeerProblemKind, string>),
);
/** Readable by its owner alone: whoever has the key reads every image of the cluster. */
const SECRET_MODE = 0o600;

interface CertFlags extends PlaceOptions {
  readonly out: string;
  readonly name: string;
}

export function addPeersCommand(program: Command, context: CommandContext): void {
  const peers = addCommand(program, "peers", {
    description: "Show the members of the cluster, their state and round trip, and what is wrong.",
    examples: ["faasnet peers", "faasnet peers --json | jq '.problems[].kind'"],
  })
    .addOption(jsonOption())
    .action(async (options: PlaceOptions & JsonOptions) => {
      await using client = await connectDaemon(context, options);
      const report = await client.peers({ signal: context.signal });
      if (options.json === true) printJson(context, report);
      else for (const line of peersLines(report)) context.terminal.print(line);
    });
  addMirrorCommand(peers, context);
  addCertCommand(peers, context);
}

/** For people: members as a table, problems below it with what to do. */
export function peersLines(report: PeersReport): string[] {
  if (!report.enabled) {
    const [failure] = report.problems;
    if (failure !== undefined) return [`peers could not be started: ${failure.detail}`];
    return ["peers are off: [peer] enabled = true turns them on"];
  }
  const alive = report.members.filter(({ state }) => state === "alive").length;
  const fields = formatFields([
    ["self", report.self],
    ["members", `${formatCount(alive)} alive of ${formatCount(report.members.length)}`],
    ["health", healthOf(report.healthScore)],
    ["refused", refusedOf(report.refused)],
  ]);
  return [...fields, "", ...memberLines(report), ...problemLines(report)];
}

function healthOf(score: number): string {
  return score === 0
    ? "good"
    : `degraded (${formatCount(score)}): probes are late here, so time-outs are longer`;
}

/** `nothing`, `3 packets (2 forged, 1 replayed), 4 connections` */
function refusedOf({ connections = 0, ...packets }: PeersReport["refused"]): string {
  const reasons = Object.entries(packets).filter(([, count]) => count > 0);
  const sum = reasons.reduce((all, [, count]) => all + count, 0);
  const each = reasons.map(([reason, count]) => `${formatCount(count)} ${reason}`).join(", ");
  const parts = [
    ...(sum > 0 ? [`${formatCount(sum)} packets (${each})`] : []),
    ...(connections > 0 ? [`${formatCount(connections)} connections`] : []),
  ];
  return parts.length === 0 ? "nothing" : parts.join(", ");
}

function memberLines(report: PeersReport): string[] {
  return formatTable(
    [
      { title: "NAME" },
      { title: "STATE" },
      { title: "FOR", align: "right" },
      { title: "ROUND TRIP", align: "right" },
      { title: "ADDRESS" },
      { title: "BLOCKS FROM" },
      { title: "ZONE" },
      { title: "WIRE", align: "right" },
      { title: "NOTE" },
    ],
    report.members.map((member) => [
      member.name,
      member.state,
      formatDuration(member.stateSeconds),
      member.roundTripMs === null ? "-" : formatMs(member.roundTripMs),
      member.address,
      member.exchangeAddress,
      member.zone === "" ? "-" : member.zone,
      formatCount(member.wireVersion),
      notesOf(report, member),
    ]),
  );
}

function notesOf(report: PeersReport, member: PeersReport["members"][number]): string {
  const problems = report.problems
    .filter((problem) => problem.who === member.name)
    .map((problem) => titleOf(problem.kind));
  const roles = [...(member.isSelf ? ["this node"] : []), ...(member.isSeed ? ["seed"] : [])];
  return [...roles, ...new Set(problems)].join(", ");
}

function titleOf(kind: string): string {
  return PROBLEMS.get(kind) ?? kind.replaceAll("-", " "); // a newer daemon's
}

function problemLines(report: PeersReport): string[] {
  return report.problems.flatMap((problem) => {
    const ago = formatDuration(problem.secondsAgo);
    const seen = `seen ${formatCount(problem.count)} times, last ${ago} ago`;
    return ["", `${titleOf(problem.kind)}: ${problem.who}, ${seen}`, `  ${problem.detail}`];
  });
}

/** `0.42 ms`, `12 ms` */
function formatMs(ms: number): string {
  return `${ms < 9.995 ? ms.toFixed(2) : ms.toFixed(0)} ms`;
}

/** Place options and --json are known to `peers` too: given before the sub-command they are its. */
function addMirrorCommand(peers: Command, context: CommandContext): void {
  addCommand(peers, "mirror", {
    description:
      "Print the lines of a hosts.toml for containerd's certs.d: it then reads images from the " +
      "caches of the cluster first, also while the registry is down.",
    examples: ["faasnet peers mirror >> /etc/containerd/certs.d/docker.io/hosts.toml"],
  })
    .addOption(jsonOption())
    .action(async (_options: object, command: Command) => {
      const options: PlaceOptions & JsonOptions = command.optsWithGlobals();
      await using client = await connectDaemon(context, options);
      const report = await client.mirror({ signal: context.signal });
      if (options.json === true) printJson(context, report);
      else for (const line of hostLines(report.loopbackUrl)) context.terminal.print(line);
    });
}

/** Source: containerd docs/hosts.md. A mirror is no place to push to, nor the truth about a tag. */
function hostLines(url: string, more: readonly string[] = []): string[] {
  return [`[host."${url}"]`, '  capabilities = ["pull", "resolve"]', ...more];
}

function addCertCommand(peers: Command, context: CommandContext): void {
  addCommand(peers, "cert", {
    description:
      "Write a client certificate of the cluster, its key, the authority and a hosts.toml that " +
      "uses them. Whoever has the key can read every image that the cluster has.",
    examples: ["faasnet peers cert --out /etc/containerd/certs.d/docker.io --name builder"],
  })
    .requiredOption("--out <dir>", "folder to write to; made when it is not there")
    .option("--name <name>", "whom it is for: the certificate's subject", "client")
    .action(async (_options: object, command: Command) => {
      const options: CertFlags = command.optsWithGlobals();
      await using client = await connectDaemon(context, options);
      const report = await client.certificate(options.name, { signal: context.signal });
      const folder = resolve(options.out);
      for (const file of await writeCertificate(folder, report)) context.terminal.print(file);
    });
}

async function writeCertificate(folder: string, report: CertificateReport): Promise<string[]> {
  const [ca, certificate, key] = ["ca.crt", "client.cert", "client.key"].map((name) =>
    join(folder, name),
  ) as [string, string, string];
  // A basic string of TOML is written as one of JSON.
  const hosts = hostLines(report.url, [
    `  ca = ${JSON.stringify(ca)}`,
    `  client = [[${JSON.stringify(certificate)}, ${JSON.stringify(key)}]]`,
  ]);
  const files: readonly (readonly [string, string, number])[] = [
    [ca, report.ca, 0o644],
    [certificate, report.certificate, 0o644],
    [key, report.privateKey, SECRET_MODE],
    [join(folder, "hosts.toml"), `${hosts.join("\n")}\n`, 0o644],
  ];
  try {
    await mkdir(folder, { recursive: true });
    // Never over an existing file: a hosts.toml of the operator's, or a key in use.
    for (const [path, text, mode] of files) await writeFile(path, text, { mode, flag: "wx" });
  } catch (error) {
    throw withContext(error, `cannot write the certificate to ${folder}`, "failed-precondition");
  }
  return files.map(([path]) => path);
}

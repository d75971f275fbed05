/** What `faasnet peers` and `faasnet tree` are answered. */
import { DaemonError } from "../../base/errors.ts";
import { digestHex } from "../../oci/index.ts";
import { hostPort } from "../../peer/index.ts";
import type { ManagedTreeReport, MembersReport, Position } from "../../peer/index.ts";
import type { ImageService } from "../image-service.ts";
import type { ImageRecord } from "../image-store.ts";
import type {
  CertificateReport,
  MirrorReport,
  PeersReport,
  SourceReport,
  TreeMemberReport,
  TreeReport,
  TreesReport,
} from "../peer-reports.ts";
import type { PeerSide } from "./peer-side.ts";

const SECOND_MS = 1000;
const NO_PEERS: PeersReport = {
  enabled: false,
  self: "",
  healthScore: 0,
  members: [],
  seeds: [],
  problems: [],
  refused: {},
  documentsBySource: {},
};

export async function peersReport({ parts }: ImageService): Promise<PeersReport> {
  const { peers, peersFailure } = parts;
  if (peers === undefined) {
    if (peersFailure === undefined) return NO_PEERS;
    const problem = { kind: "not-started", who: "[peer]", detail: peersFailure };
    return { ...NO_PEERS, problems: [{ ...problem, count: 1, secondsAgo: 0 }] };
  }
  const report = await peers.node.members();
  return {
    enabled: true,
    self: report.self.id,
    healthScore: report.healthScore,
    members: report.members.map(memberOf),
    seeds: report.seeds.map(({ entry, addresses, error }) => ({
      entry,
      addresses: addresses.map(hostPort),
      error: error ?? null,
    })),
    problems: report.findings.map(({ kind, who, detail, count, ageMs }) => ({
      kind,
      who,
      detail,
      count,
      secondsAgo: Math.round(ageMs / SECOND_MS),
    })),
    refused: { ...report.packets.refused, connections: peers.refusedConnections },
    documentsBySource: { ...peers.documentCounts },
  };
}

function memberOf(member: MembersReport["members"][number]): PeersReport["members"][number] {
  const { address, exchangePort } = member;
  return {
    name: member.id,
    state: member.state,
    stateSeconds: Math.round(member.stateMs / SECOND_MS),
    address: hostPort(address),
    exchangeAddress: hostPort({ ...address, port: exchangePort }),
    zone: member.zone,
    wireVersion: member.version,
    isSelf: member.isSelf,
    isSeed: member.isSeed,
    roundTripMs: member.roundTripMs ?? null,
    clockAheadMs: member.clockAheadMs ?? null,
    udp: member.udp,
    tcp: member.tcp,
  };
}

/** `wanted`: a reference, a manifest digest or its beginning; empty: all. */
export async function treesReport(service: ImageService, wanted: string): Promise<TreesReport> {
  const { peers } = service.parts;
  if (peers === undefined) return { enabled: false, self: "", trees: [] };
  const report = await peers.node.trees();
  const managed = new Map(report.managed.map((tree) => [tree.image, tree]));
  const images = new Set([...report.memberOf.map(({ image }) => image), ...managed.keys()]);
  const trees: TreeReport[] = [];
  for (const image of [...images].sort()) {
    const record = service.parts.images.images.find((one) => one.manifestDigest === image);
    if (!isWanted(image, record, wanted)) continue;
    const position = peers.node.position(image);
    const tree = treeOf(service, { image, record, position, managed: managed.get(image) });
    if (tree !== undefined) trees.push(tree);
  }
  return { enabled: true, self: peers.node.self.id, trees };
}

function isWanted(image: string, record: ImageRecord | undefined, wanted: string): boolean {
  if (wanted === "" || record?.reference === wanted) return true;
  return wanted.length >= 4 && (image.startsWith(wanted) || image.startsWith(`sha256:${wanted}`));
}

interface KnownTree {
  readonly image: string;
  readonly record: ImageRecord | undefined;
  readonly position: Position | undefined;
  readonly managed: ManagedTreeReport | undefined;
}

function treeOf(service: ImageService, known: KnownTree): TreeReport | undefined {
  const { image, record, position, managed } = known;
  const isWhole = managed?.role === "manager";
  const epoch = isWhole ? managed.epoch : position?.epoch;
  if (epoch === undefined) return undefined;
  const members = isWhole
    ? managed.members.map((member) => managedMember(service, member))
    : ownPart(service, position);
  return {
    image,
    reference: record?.reference ?? "",
    blocks: record === undefined ? 0 : blocksOf(service, record),
    epoch: { counter: epoch.counter, manager: epoch.manager },
    size: isWhole ? managed.members.length : (position?.size ?? members.length),
    root: isWhole
      ? (members.find(({ parent }) => parent === null)?.name ?? "")
      : (position?.root.id ?? ""),
    isWhole,
    members,
    blocksBySource: record === undefined ? {} : sourcesOf(service, record),
  };
}

/** What another member sent is known to it alone. */
function managedMember(
  { parts: { peers } }: ImageService,
  member: ManagedTreeReport["members"][number],
): TreeMemberReport {
  const total = peers?.node.self.id === member.id ? peers.counters.total : undefined;
  return {
    name: member.id,
    zone: member.zone,
    slot: member.slot,
    parent: member.parent ?? null,
    blocksHeld: member.heldBlocks,
    bytesIn: total?.bytesIn ?? null,
    bytesOut: total?.bytesOut ?? null,
  };
}

/** Who is above this node, and the node itself. */
function ownPart(service: ImageService, position: Position | undefined): TreeMemberReport[] {
  const { peers } = service.parts;
  if (peers === undefined || position === undefined) return [];
  const { total } = peers.counters;
  const self = {
    name: peers.node.self.id,
    zone: position.zone,
    slot: position.slot,
    parent: position.parent?.id ?? null,
    blocksHeld: 0,
    bytesIn: total.bytesIn,
    bytesOut: total.bytesOut,
  };
  const above = [position.parent, position.grandparent, position.root]
    .filter((peer) => peer !== undefined)
    .filter((peer, at, all) => all.findIndex(({ id }) => id === peer.id) === at)
    .filter(({ id }) => id !== self.name);
  return [
    ...above.map((peer, at) => ({
      name: peer.id,
      zone: peer.zone,
      slot: peer.id === position.root.id ? 0 : (position.slot - 1) >> (at + 1),
      parent: peer.id === position.root.id ? null : (above[at + 1]?.id ?? position.root.id),
      blocksHeld: 0,
      bytesIn: null,
      bytesOut: null,
    })),
    self,
  ];
}

function blocksOf(service: ImageService, record: ImageRecord): number {
  return record.layers.reduce((sum, { diffId }) => sum + service.parts.layers.blocksOf(diffId), 0);
}

function sourcesOf(service: ImageService, record: ImageRecord): Record<string, SourceReport> {
  const sums: Record<string, { blocks: number; bytes: number }> = {};
  const add = (name: string, blocks: number, bytes: number): void => {
    const sum = (sums[name] ??= { blocks: 0, bytes: 0 });
    sum.blocks += blocks;
    sum.bytes += bytes;
  };
  for (const { diffId } of record.layers) {
    const id = digestHex(diffId);
    if (!service.parts.resolver.hasLayer(id)) continue;
    const counts = service.parts.resolver.stats(id);
    for (const [name, { blocks, blobBytes }] of Object.entries(counts.sources)) {
      add(name, blocks, blobBytes);
    }
    add("memory", counts.local.memory.blocks, counts.local.memory.bytes);
    add("disk", counts.local.disk.blocks, counts.local.disk.bytes);
  }
  return sums;
}

export function mirrorReport(peers: PeerSide | undefined): MirrorReport {
  const { url, loopbackUrl } = enabled(peers);
  if (loopbackUrl !== "") return { url, loopbackUrl };
  throw new DaemonError("failed-precondition", "no mirror is served: [peer] mirror is empty");
}

export function certificateReport(peers: PeerSide | undefined, name: string): CertificateReport {
  const { identity, url } = enabled(peers);
  const { authorities, certificate, privateKey } = identity.exportClient(name);
  return { ca: authorities.join(""), certificate, privateKey, url };
}

function enabled(peers: PeerSide | undefined): PeerSide {
  if (peers !== undefined) return peers;
  throw new DaemonError("failed-precondition", "peers are off: [peer] enabled = true");
}

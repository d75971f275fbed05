/** Parsers of what the image service says of members and trees (src/daemon/peer-reports.ts). */
import { z } from "zod";
import type { CertificateReport, MirrorReport, PeersReport, TreesReport } from "../daemon/index.ts";
import { parseReport } from "./reports.ts";

const count = z.number().int().nonnegative();
const seconds = z.number().nonnegative();
const reach = z.enum(["unknown", "ok", "silent"]);

const peersSchema: z.ZodType<PeersReport> = z.looseObject({
  enabled: z.boolean(),
  self: z.string(),
  healthScore: count,
  members: z.array(
    z.looseObject({
      name: z.string(),
      state: z.enum(["alive", "suspect", "dead", "left"]),
      stateSeconds: seconds,
      address: z.string(),
      exchangeAddress: z.string(),
      zone: z.string(),
      wireVersion: count,
      isSelf: z.boolean(),
      isSeed: z.boolean(),
      roundTripMs: z.number().nonnegative().nullable(),
      clockAheadMs: z.number().nullable(),
      udp: reach,
      tcp: reach,
    }),
  ),
  seeds: z.array(
    z.looseObject({
      entry: z.string(),
      addresses: z.array(z.string()),
      error: z.string().nullable(),
    }),
  ),
  problems: z.array(
    z.looseObject({
      kind: z.string(),
      who: z.string(),
      detail: z.string(),
      count,
      secondsAgo: seconds,
    }),
  ),
  // An older daemon does not count it.
  refused: z.record(z.string(), count).default({}),
  documentsBySource: z.record(z.string(), count).default({}), // none by an older daemon
});

const treesSchema: z.ZodType<TreesReport> = z.looseObject({
  enabled: z.boolean(),
  self: z.string(),
  trees: z.array(
    z.looseObject({
      image: z.string(),
      reference: z.string(),
      blocks: count,
      epoch: z.looseObject({ counter: count, manager: z.string() }),
      size: count,
      root: z.string(),
      isWhole: z.boolean(),
      members: z.array(
        z.looseObject({
          name: z.string(),
          zone: z.string(),
          slot: count,
          parent: z.string().nullable(),
          blocksHeld: count,
          bytesIn: count.nullable(),
          bytesOut: count.nullable(),
        }),
      ),
      blocksBySource: z.record(z.string(), z.looseObject({ blocks: count, bytes: count })),
    }),
  ),
});

const mirrorSchema: z.ZodType<MirrorReport> = z.looseObject({
  loopbackUrl: z.url({ protocol: /^http$/ }),
  url: z.url({ protocol: /^https$/ }),
});

const certificateSchema: z.ZodType<CertificateReport> = z.looseObject({
  ca: z.string().min(1),
  certificate: z.string().min(1),
  privateKey: z.string().min(1),
  url: z.url({ protocol: /^https$/ }),
});

export function parsePeersReport(json: string): PeersReport {
  return parseReport(peersSchema, "list of peers", json);
}

export function parseTreesReport(json: string): TreesReport {
  return parseReport(treesSchema, "list of trees", json);
}

export function parseMirrorReport(json: string): MirrorReport {
  return parseReport(mirrorSchema, "mirror address", json);
}

export function parseCertificateReport(json: string): CertificateReport {
  return parseReport(certificateSchema, "client certificate", json);
}

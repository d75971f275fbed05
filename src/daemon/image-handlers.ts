/** control.proto's service Image: requests checked, answers shaped; no decisions. */
import { z } from "zod";
import type { Handler, Handlers } from "../control/index.ts";
import { formatPlatform, parseChainId, tryParseDigest } from "../oci/index.ts";
import type { EnsureImageRequest } from "./ensure-image.ts";
import { platformOf } from "./image-resolver.ts";
import type { ImageService } from "./image-service.ts";
import type { ImageRecord } from "./image-store.ts";
import { certificateReport, mirrorReport, peersReport, treesReport } from "./peers/peer-report.ts";
import { cacheReport, inspectReport, statusReport } from "./reports.ts";
import type { ServiceFacts } from "./reports.ts";

const bytes = z.instanceof(Uint8Array);
const ensureSchema = z
  .object({
    reference: z.string().min(1),
    manifestDigest: z.string(),
    chainId: z.string(),
    manifest: bytes,
    config: bytes,
    platform: z.string(),
    alternatives: z.array(z.string()).max(64),
  })
  .transform((request): EnsureImageRequest => ({
    reference: request.reference,
    manifestDigest: tryParseDigest(request.manifestDigest),
    chainId: request.chainId === "" ? undefined : parseChainId(request.chainId),
    manifest: request.manifest.length === 0 ? undefined : request.manifest,
    config: request.config.length === 0 ? undefined : request.config,
    platform: request.platform === "" ? undefined : request.platform,
    alternatives: request.alternatives,
  }));
const chainSchema = z.object({ chainId: z.string().transform(parseChainId) });
const mountSchema = chainSchema.extend({ target: z.string() });
const retainSchema = z.object({ chainIds: z.array(z.string().transform(parseChainId)) });
const treesSchema = z.object({ image: z.string() });
const certificateSchema = z.object({ name: z.string().min(1) });
const imageSchema = z.object({ reference: z.string().min(1), platform: z.string() });

export interface ImageHandlerOptions {
  readonly facts: ServiceFacts;
  /** Unmounts what it can, tells the keeper to go, ends the process; answers what remains. */
  readonly shutdown: () => Promise<number>;
}

export function imageHandlers(
  ready: Promise<{ readonly service: ImageService; readonly options: ImageHandlerOptions }>,
): Handlers {
  const when: When = (handle) => async (request, context) => {
    const { service, options } = await ready;
    return handle(service, request, context, options);
  };
  return {
    // At once, also while the service is being built: a successor must learn whom to end.
    "Image.Hello": () => Promise.resolve({ pid: process.pid }),
    "Image.Ensure": when(async (service, request, context) => {
      const { image, layers } = await service.ensure(ensureSchema.parse(request), {
        signal: context.signal,
        onProgress: (progress) => {
          context.item({ progress });
        },
      });
      return { manifestDigest: image.manifestDigest, layers };
    }),
    "Image.Knows": when(async (service, request) => {
      const layers = await service.knows(chainSchema.parse(request).chainId);
      return { known: layers !== undefined, layers: layers ?? [] };
    }),
    "Image.Mount": when(async (service, request, { signal }) => {
      const { chainId, target } = mountSchema.parse(request);
      return service.mount(chainId, { signal, target: target === "" ? undefined : target });
    }),
    "Image.Release": when(async (service, request, { signal }) => {
      await service.release(chainSchema.parse(request).chainId, { signal });
      return {};
    }),
    "Image.Retain": when(async (service, request, { signal }) => {
      await service.retain(retainSchema.parse(request).chainIds, { signal });
      return {};
    }),
    ...commandHandlers(when),
  };
}

type When = (
  handle: (
    service: ImageService,
    request: unknown,
    context: Parameters<Handler>[1],
    options: ImageHandlerOptions,
  ) => Promise<object>,
) => Handler;

/** What only the command line calls. */
function commandHandlers(when: When): Handlers {
  return {
    "Image.Fill": when(async (service, request, context) => {
      const image = await ensureNamed(service, request, context.signal, () => undefined);
      const result = await service.fill(image, {
        signal: context.signal,
        onProgress: ({ doneBytes, totalBytes }) => {
          context.item({ doneBytes, totalBytes });
        },
      });
      return { doneBytes: result.doneBytes, totalBytes: result.totalBytes };
    }),
    "Image.Inspect": when(async (service, request, context, { facts }) => {
      const image = await ensureNamed(service, request, context.signal, (progress) => {
        context.item({ json: JSON.stringify(progress) });
      });
      const platform = formatPlatform(platformOf(imageSchema.parse(request).platform || undefined));
      const report = await inspectReport(service, image, { ...facts, platform });
      return { json: JSON.stringify(report) };
    }),
    "Image.Status": when(async (service, _request, _context, { facts }) => ({
      json: JSON.stringify(await statusReport(service, facts)),
    })),
    "Image.Peers": when(async (service) => ({
      json: JSON.stringify(await peersReport(service)),
    })),
    "Image.Trees": when(async (service, request) => ({
      json: JSON.stringify(await treesReport(service, treesSchema.parse(request).image)),
    })),
    "Image.Mirror": when((service) =>
      Promise.resolve({ json: JSON.stringify(mirrorReport(service.parts.peers)) }),
    ),
    "Image.Certificate": when((service, request) => {
      const { name } = certificateSchema.parse(request);
      return Promise.resolve({
        json: JSON.stringify(certificateReport(service.parts.peers, name)),
      });
    }),
    "Image.CacheList": when(async (service) => ({
      json: JSON.stringify(await cacheReport(service)),
    })),
    "Image.CacheClear": when((service, _request, { signal }) => service.clearCache({ signal })),
    "Image.Shutdown": when(async (_service, _request, _context, options) => ({
      remaining: await options.shutdown(),
    })),
  };
}

async function ensureNamed(
  service: ImageService,
  request: unknown,
  signal: AbortSignal,
  onProgress: (progress: object) => void,
): Promise<ImageRecord> {
  const { reference, platform } = imageSchema.parse(request);
  const { image } = await service.ensure(
    { reference, platform: platform === "" ? undefined : platform, alternatives: [] },
    { signal, onProgress },
  );
  return image;
}

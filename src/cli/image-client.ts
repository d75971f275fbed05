/** The command line's side of the image service's socket (service Image of control.proto). */
import { z } from "zod";
import { DaemonError, systemErrorName } from "../base/errors.ts";
import { connectControl } from "../control/index.ts";
import type { ControlConnection } from "../control/index.ts";
import { CliError } from "./cli-error.ts";
import type {
  CertificateReport,
  EnsureProgress,
  MirrorReport,
  PeersReport,
  TreesReport,
} from "../daemon/index.ts";
import { EXIT } from "./exit-codes.ts";
import {
  parseCertificateReport,
  parseMirrorReport,
  parsePeersReport,
  parseTreesReport,
} from "./peer-reports.ts";
import { parseCacheReport, parseInspectReport, parseStatusReport } from "./reports.ts";
import type { CacheReport, InspectReport, StatusReport } from "./reports.ts";

const count = z.number().int().nonnegative();
const jsonResultSchema = z.object({ json: z.string() });
const fillSchema = z.object({ doneBytes: count, totalBytes: count });
const clearedSchema = z.object({ bytes: count, blocks: count });
const progressSchema = z.object({
  phase: z.enum(["resolve", "map"]),
  doneBytes: count,
  totalBytes: count,
  layersDone: count,
  layers: count,
});

export type FillProgress = z.infer<typeof fillSchema>;
export type ClearedCache = z.infer<typeof clearedSchema>;

export interface ImageSelector {
  readonly reference: string;
  /** Undefined: this machine's. */
  readonly platform: string | undefined;
}

interface CallOptions {
  readonly signal: AbortSignal;
}

function parseAnswer<T>(schema: z.ZodType<T>, method: string, answer: unknown): T {
  const result = schema.safeParse(answer);
  if (result.success) return result.data;
  throw new DaemonError("internal", `${method}: unexpected answer of the daemon`, {
    cause: result.error,
  });
}

export class ImageClient implements AsyncDisposable {
  readonly #connection: ControlConnection;

  private constructor(connection: ControlConnection) {
    this.#connection = connection;
  }

  /** Fails with exit code 4 and the socket's name when no daemon answers there. */
  static async connect(socketPath: string, options: CallOptions): Promise<ImageClient> {
    try {
      return new ImageClient(await connectControl(socketPath, {}, options));
    } catch (error) {
      throw explainConnectFailure(socketPath, error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection[Symbol.asyncDispose]();
  }

  async status(options: CallOptions): Promise<StatusReport> {
    return parseStatusReport(await this.#json("Image.Status", {}, options));
  }

  async cacheList(options: CallOptions): Promise<CacheReport> {
    return parseCacheReport(await this.#json("Image.CacheList", {}, options));
  }

  async peers(options: CallOptions): Promise<PeersReport> {
    return parsePeersReport(await this.#json("Image.Peers", {}, options));
  }

  /** `image`: a reference, a manifest digest or its beginning; empty: all trees. */
  async trees(image: string, options: CallOptions): Promise<TreesReport> {
    return parseTreesReport(await this.#json("Image.Trees", { image }, options));
  }

  async mirror(options: CallOptions): Promise<MirrorReport> {
    return parseMirrorReport(await this.#json("Image.Mirror", {}, options));
  }

  async certificate(name: string, options: CallOptions): Promise<CertificateReport> {
    return parseCertificateReport(await this.#json("Image.Certificate", { name }, options));
  }

  /** Drops cached blocks; maps and claims stay. */
  async cacheClear(options: CallOptions): Promise<ClearedCache> {
    const method = "Image.CacheClear";
    return parseAnswer(clearedSchema, method, await this.#connection.call(method, {}, options));
  }

  /** Makes the image's map if it has none; `onProgress` is told meanwhile. */
  async inspect(
    image: ImageSelector,
    options: CallOptions & { readonly onProgress: (progress: EnsureProgress) => void },
  ): Promise<InspectReport> {
    const method = "Image.Inspect";
    const onItem = (item: unknown): void => {
      const { json } = parseAnswer(jsonResultSchema, method, item);
      options.onProgress(parseAnswer(progressSchema, method, JSON.parse(json)));
    };
    const request = { reference: image.reference, platform: image.platform ?? "" };
    return parseInspectReport(
      await this.#json(method, request, { signal: options.signal, onItem }),
    );
  }

  /** Fetches every block that is missing. The daemon goes on when the caller leaves. */
  async fill(
    image: ImageSelector,
    options: CallOptions & { readonly onProgress: (progress: FillProgress) => void },
  ): Promise<FillProgress> {
    const method = "Image.Fill";
    const request = { reference: image.reference, platform: image.platform ?? "" };
    const answer = await this.#connection.call(method, request, {
      signal: options.signal,
      onItem: (item) => {
        options.onProgress(parseAnswer(fillSchema, method, item));
      },
    });
    return parseAnswer(fillSchema, method, answer);
  }

  async #json(
    method: string,
    request: object,
    options: CallOptions & { readonly onItem?: (item: unknown) => void },
  ): Promise<string> {
    const answer = await this.#connection.call(method, request, options);
    return parseAnswer(jsonResultSchema, method, answer).json;
  }
}

function explainConnectFailure(socketPath: string, error: unknown): unknown {
  if (!(error instanceof DaemonError)) return error;
  if (error.code === "permission-denied") {
    return new CliError("permission-denied", `may not use ${socketPath}`, {
      hint: "run it as root, the daemon's user",
      cause: error.cause,
    });
  }
  if (error.code !== "unavailable") return error;
  const isThere = systemErrorName(error.cause) !== "ENOENT";
  return new CliError("unavailable", `no daemon answers at ${socketPath}`, {
    hint: isThere
      ? "it has stopped or is starting: look at its log, or start it with `faasnet daemon`"
      : "start it with `faasnet daemon`, or name its state folder with --state",
    exitCode: EXIT.notRunning,
  });
}

/**
 * containerd's own API, which we call back while it calls us: only from Prepare and at start,
 * never from Commit (that runs inside containerd's database transaction).
 * Connects when first used, so that either may start first.
 */
import { Client, connectivityState, credentials, Metadata } from "@grpc/grpc-js";
import type { ClientReadableStream, MethodDefinition } from "@grpc/grpc-js";
import { abortReason, throwIfAborted } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { DaemonError } from "../../base/errors.ts";
import { tryParseDigest } from "../../oci/index.ts";
import type { Digest } from "../../oci/index.ts";
import {
  CONTAINERD_CALL_MS,
  GRPC_MESSAGE_BYTES_MAX,
  IMAGE_RECORDS_MAX,
  MANIFESTS_MAX,
  NAMESPACES_MAX,
} from "../limits.ts";
import { LABEL_GC_CONFIG } from "../labels.ts";
import type { Labels } from "../snapshot-info.ts";
import {
  bytesField,
  listField,
  mapField,
  messageOf,
  numberField,
  stringField,
  timestampField,
} from "./fields.ts";
import { containerdService } from "./protos.ts";
import type { ServiceName } from "./protos.ts";
import { fromGrpcError } from "./status.ts";

export interface ContentInfo {
  readonly digest: Digest;
  readonly bytes: number;
  readonly createdNs: bigint;
  readonly labels: Labels;
}

interface CallOptions {
  readonly signal: AbortSignal;
}

/** What the snapshotter asks containerd; narrow, so that tests can play it. */
export interface ContainerdApi {
  /** Whether the connection of the last call still stands (a new containerd may answer else). */
  readonly isConnected: boolean;
  uuid(options: CallOptions): Promise<string>;
  namespaces(options: CallOptions): Promise<readonly string[]>;
  /** The namespace's image manifests, in no order. */
  manifests(namespace: string, options: CallOptions): Promise<readonly ContentInfo[]>;
  /** Undefined when the store does not hold it. */
  readContent(
    namespace: string,
    digest: Digest,
    options: CallOptions & { readonly bytesMax: number },
  ): Promise<Uint8Array | undefined>;
  imageNames(namespace: string, options: CallOptions): Promise<readonly string[]>;
}

interface CallInput {
  readonly service: ServiceName;
  readonly method: string;
  readonly request: object;
  readonly namespace?: string;
}

export class ContainerdClient implements ContainerdApi, AsyncDisposable {
  readonly #address: string;
  readonly #clock: Clock;
  #client: Client | undefined;
  #isDisposed = false;

  /** `address` is the path of containerd's socket. */
  constructor(address: string, { clock }: { readonly clock: Clock }) {
    this.#address = address;
    this.#clock = clock;
  }

  get isConnected(): boolean {
    const state = this.#client?.getChannel().getConnectivityState(false);
    return state === connectivityState.READY;
  }

  async uuid({ signal }: CallOptions): Promise<string> {
    const service = "containerd.services.introspection.v1.Introspection";
    const answer = await this.#unary({ service, method: "Server", request: {} }, signal);
    const uuid = stringField(answer, "uuid");
    if (!/^[0-9A-Za-z-]{1,64}$/.test(uuid)) {
      throw new DaemonError("unavailable", "containerd gave no usable UUID");
    }
    return uuid;
  }

  async namespaces({ signal }: CallOptions): Promise<readonly string[]> {
    const service = "containerd.services.namespaces.v1.Namespaces";
    const answer = await this.#unary({ service, method: "List", request: {} }, signal);
    return listField(answer, "namespaces")
      .map((entry) => stringField(entry, "name"))
      .filter((name) => name !== "")
      .slice(0, NAMESPACES_MAX);
  }

  async manifests(namespace: string, { signal }: CallOptions): Promise<readonly ContentInfo[]> {
    const infos: ContentInfo[] = [];
    const input: CallInput = {
      service: "containerd.services.content.v1.Content",
      method: "List",
      request: { filters: [`labels."${LABEL_GC_CONFIG}"`] },
      namespace,
    };
    await this.#stream(input, signal, (message) => {
      for (const entry of listField(message, "info")) {
        const digest = tryParseDigest(stringField(entry, "digest"));
        if (digest === undefined) continue;
        infos.push({
          digest,
          bytes: numberField(entry, "size"),
          createdNs: timestampField(entry, "created_at"),
          labels: mapField(entry, "labels"),
        });
      }
      if (infos.length <= MANIFESTS_MAX) return;
      throw new DaemonError(
        "resource-exhausted",
        `namespace ${namespace} has more than ${MANIFESTS_MAX} manifests`,
      );
    });
    return infos;
  }

  async readContent(
    namespace: string,
    digest: Digest,
    options: CallOptions & { readonly bytesMax: number },
  ): Promise<Uint8Array | undefined> {
    const parts: Uint8Array[] = [];
    let bytes = 0;
    const input: CallInput = {
      service: "containerd.services.content.v1.Content",
      method: "Read",
      request: { digest, offset: 0, size: 0 },
      namespace,
    };
    try {
      await this.#stream(input, options.signal, (message) => {
        const data = bytesField(message, "data");
        bytes += data.length;
        if (bytes > options.bytesMax) {
          throw new DaemonError(
            "resource-exhausted",
            `content ${digest} is larger than ${options.bytesMax} bytes`,
          );
        }
        parts.push(data);
      });
    } catch (error) {
      if (error instanceof DaemonError && error.code === "not-found") return undefined;
      throw error;
    }
    return Buffer.concat(parts);
  }

  async imageNames(namespace: string, { signal }: CallOptions): Promise<readonly string[]> {
    const service = "containerd.services.images.v1.Images";
    const answer = await this.#unary({ service, method: "List", request: {}, namespace }, signal);
    const images = listField(answer, "images").slice(0, IMAGE_RECORDS_MAX);
    return images.map((image) => stringField(image, "name"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    this.#client?.close();
    this.#client = undefined;
    return Promise.resolve();
  }

  #connected(): Client {
    if (this.#isDisposed) throw new DaemonError("unavailable", "containerd client is closed");
    const state = this.#client?.getChannel().getConnectivityState(false);
    if (state === connectivityState.TRANSIENT_FAILURE) {
      // A channel that failed once refuses calls until its back-off ends. containerd may have
      // started meanwhile: it is there, for it just called us.
      this.#client?.close();
      this.#client = undefined;
    }
    this.#client ??= new Client(`unix:${this.#address}`, credentials.createInsecure(), {
      "grpc.max_receive_message_length": GRPC_MESSAGE_BYTES_MAX,
      "grpc.max_send_message_length": GRPC_MESSAGE_BYTES_MAX,
      // Else a new client inherits the back-off of the one before.
      "grpc.use_local_subchannel_pool": 1,
      "grpc.enable_http_proxy": 0,
    });
    return this.#client;
  }

  #prepare(input: CallInput): { method: MethodDefinition<object, object>; metadata: Metadata } {
    const method = containerdService(input.service)[input.method];
    if (method === undefined) throw new DaemonError("internal", `no method ${input.method}`);
    const metadata = new Metadata();
    if (input.namespace !== undefined) metadata.set("containerd-namespace", input.namespace);
    return { method, metadata };
  }

  async #unary(input: CallInput, signal: AbortSignal): Promise<unknown> {
    throwIfAborted(signal);
    const client = this.#connected();
    const { method, metadata } = this.#prepare(input);
    const limit = this.#limit(signal, input);
    try {
      return await new Promise<unknown>((resolve, reject) => {
        const call = client.makeUnaryRequest(
          method.path,
          method.requestSerialize,
          method.responseDeserialize,
          input.request,
          metadata,
          {},
          (error, answer) => {
            if (error === null) resolve(messageOf(answer));
            else reject(this.#failure(error, input, limit.signal));
          },
        );
        limit.onAbort(() => {
          call.cancel();
        });
      });
    } finally {
      limit.end();
    }
  }

  async #stream(
    input: CallInput,
    signal: AbortSignal,
    onMessage: (message: unknown) => void,
  ): Promise<void> {
    throwIfAborted(signal);
    const { method, metadata } = this.#prepare(input);
    const call: ClientReadableStream<object> = this.#connected().makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      input.request,
      metadata,
      {},
    );
    const limit = this.#limit(signal, input);
    limit.onAbort(() => {
      call.cancel();
    });
    try {
      // Leaving the loop early destroys the stream, which cancels the call.
      for await (const message of call) onMessage(message);
    } catch (error) {
      if (error instanceof DaemonError) throw error;
      throw this.#failure(error, input, limit.signal);
    } finally {
      limit.end();
    }
  }

  /** The caller's signal and the deadline of one call. */
  #limit(signal: AbortSignal, input: CallInput): CallLimit {
    const deadline = new AbortController();
    const stop = this.#clock.timer(CONTAINERD_CALL_MS, () => {
      const reason = `containerd did not answer ${input.method} in ${CONTAINERD_CALL_MS} ms`;
      deadline.abort(new DaemonError("deadline-exceeded", reason));
    });
    const either = AbortSignal.any([signal, deadline.signal]);
    let cancel: (() => void) | undefined;
    return {
      signal: either,
      onAbort: (callback) => {
        cancel = callback;
        either.addEventListener("abort", callback, { once: true });
      },
      end: () => {
        stop();
        if (cancel !== undefined) either.removeEventListener("abort", cancel);
      },
    };
  }

  #failure(error: unknown, input: CallInput, signal: AbortSignal): DaemonError {
    if (signal.aborted) return abortReason(signal);
    const service = input.service.split(".").at(-1) ?? "";
    return fromGrpcError(error, `containerd at ${this.#address}: ${service}.${input.method}`);
  }
}

interface CallLimit {
  readonly signal: AbortSignal;
  onAbort(cancel: () => void): void;
  end(): void;
}

/** containerd.services.snapshots.v1.Snapshots over grpc-js: only converts. */
import { Metadata } from "@grpc/grpc-js";
import type {
  sendUnaryData,
  ServerUnaryCall,
  ServerWritableStream,
  ServiceError,
  UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { abortReason, raceAbort } from "../../base/abort.ts";
import { DaemonError, errorCode, errorMessage } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { mapField, messageOf, stringField, stringsField } from "../containerd/fields.ts";
import { GRPC_STATUS } from "../containerd/status.ts";
import { LIST_BLOCK_SNAPSHOTS, STATUS_MESSAGE_CHARS_MAX } from "../limits.ts";
import type { CreateInput, Snapshotter } from "../snapshotter.ts";
import { infoMessage, labelsOfInfo, mountsMessage } from "./messages.ts";

interface Call {
  readonly request: unknown;
  readonly namespace: string;
  readonly signal: AbortSignal;
}

type UnaryMethod = (snapshotter: Snapshotter, call: Call) => Promise<object>;

function createInput({ request, namespace }: Call): CreateInput {
  return {
    key: stringField(request, "key"),
    parent: stringField(request, "parent"),
    labels: mapField(request, "labels"),
    namespace,
  };
}

const UNARY_METHODS: Readonly<Record<string, UnaryMethod>> = {
  Prepare: async (snapshotter, call) => {
    const { signal } = call;
    return mountsMessage(await snapshotter.prepare(createInput(call), { signal }));
  },
  View: async (snapshotter, call) => {
    const { signal } = call;
    return mountsMessage(await snapshotter.view(createInput(call), { signal }));
  },
  Mounts: async (snapshotter, { request, signal }) =>
    mountsMessage(await snapshotter.mounts(stringField(request, "key"), { signal })),
  Commit: async (snapshotter, { request }) => {
    await snapshotter.commit({
      name: stringField(request, "name"),
      key: stringField(request, "key"),
      parent: stringField(request, "parent"),
      labels: mapField(request, "labels"),
    });
    return {};
  },
  Remove: async (snapshotter, { request }) => {
    await snapshotter.remove(stringField(request, "key"));
    return {};
  },
  Stat: (snapshotter, { request }) =>
    Promise.resolve({ info: infoMessage(snapshotter.stat(stringField(request, "key"))) }),
  Update: async (snapshotter, { request }) => {
    const paths = stringsField(messageOf(request)["update_mask"], "paths");
    return { info: infoMessage(await snapshotter.update({ ...labelsOfInfo(request), paths })) };
  },
  Usage: async (snapshotter, { request, signal }) => {
    const { bytes, inodes } = await snapshotter.usage(stringField(request, "key"), { signal });
    return { size: bytes, inodes };
  },
  Cleanup: async (snapshotter, { signal }) => {
    await snapshotter.cleanup({ signal });
    return {};
  },
};

interface CancellableCall {
  readonly cancelled: boolean;
  readonly metadata: Metadata;
  on(event: "cancelled", listener: () => void): unknown;
}

/** Aborted when the client leaves or its deadline passes. */
function callSignal(call: CancellableCall): AbortSignal {
  const controller = new AbortController();
  const abort = (): void => {
    controller.abort(new DaemonError("canceled", "the client left"));
  };
  if (call.cancelled) abort();
  else call.on("cancelled", abort);
  return controller.signal;
}

function namespaceOf(metadata: Metadata): string {
  const [namespace] = metadata.get("containerd-namespace");
  return typeof namespace === "string" ? namespace : "";
}

function serviceError(error: unknown): ServiceError {
  const details = errorMessage(error).slice(0, STATUS_MESSAGE_CHARS_MAX);
  const code = GRPC_STATUS[errorCode(error)];
  return Object.assign(new Error(details), { code, details, metadata: new Metadata() });
}

/** Expected answers are the client's business; the rest is worth a line. */
function logFailure(log: Logger, method: string, error: unknown): void {
  const code = errorCode(error);
  const isOurs = code === "internal" || code === "data-loss" || code === "unavailable";
  if (isOurs) log.error("snapshot-call-failed", { method, err: error });
  else log.debug("snapshot-call-refused", { method, err: error });
}

/**
 * `ready` may resolve long after the socket has been opened: until then calls wait. When it
 * rejects, every call fails with its reason.
 */
export function snapshotsService(
  ready: Promise<Snapshotter>,
  log: Logger,
): UntypedServiceImplementation {
  const service: UntypedServiceImplementation = {};
  for (const [name, method] of Object.entries(UNARY_METHODS)) {
    service[name] = (call: ServerUnaryCall<unknown, object>, callback: sendUnaryData<object>) => {
      const signal = callSignal(call);
      const { request, metadata } = call;
      raceAbort(ready, signal)
        .then((snapshotter) =>
          method(snapshotter, { request, namespace: namespaceOf(metadata), signal }),
        )
        .then(
          (answer) => {
            callback(null, answer);
          },
          (error: unknown) => {
            logFailure(log, name, error);
            callback(serviceError(error));
          },
        );
    };
  }
  service["List"] = (call: ServerWritableStream<unknown, object>) => {
    const signal = callSignal(call);
    list(ready, call, signal).catch((error: unknown) => {
      logFailure(log, "List", error);
      call.emit("error", serviceError(error));
    });
  };
  return service;
}

async function list(
  ready: Promise<Snapshotter>,
  call: ServerWritableStream<unknown, object>,
  signal: AbortSignal,
): Promise<void> {
  const snapshotter = await raceAbort(ready, signal);
  const infos = snapshotter.list(stringsField(call.request, "filters"));
  for (let start = 0; start < infos.length; start += LIST_BLOCK_SNAPSHOTS) {
    const block = infos.slice(start, start + LIST_BLOCK_SNAPSHOTS);
    const isFlowing = call.write({ info: block.map((info) => infoMessage(info)) });
    if (!isFlowing) await drained(call, signal);
  }
  call.end();
}

async function drained(
  call: ServerWritableStream<unknown, object>,
  signal: AbortSignal,
): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const onAbort = (): void => {
      call.removeListener("drain", onDrain);
      reject(abortReason(signal));
    };
    const onDrain = (): void => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    };
    if (signal.aborted) {
      onAbort();
      return;
    }
    call.once("drain", onDrain);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}

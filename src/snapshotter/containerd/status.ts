/** Our error codes and gRPC's. Source: grpc.io, "Status codes"; containerd pkg/errgrpc. */
import { status } from "@grpc/grpc-js";
import { DaemonError } from "../../base/errors.ts";
import type { ErrorCode } from "../../base/errors.ts";

/** Total: a code that is forgotten here does not compile. */
export const GRPC_STATUS: Readonly<Record<ErrorCode, status>> = {
  aborted: status.ABORTED,
  "already-exists": status.ALREADY_EXISTS,
  canceled: status.CANCELLED,
  "data-loss": status.DATA_LOSS,
  "deadline-exceeded": status.DEADLINE_EXCEEDED,
  "failed-precondition": status.FAILED_PRECONDITION,
  internal: status.INTERNAL,
  "invalid-argument": status.INVALID_ARGUMENT,
  "not-found": status.NOT_FOUND,
  "out-of-range": status.OUT_OF_RANGE,
  "permission-denied": status.PERMISSION_DENIED,
  "resource-exhausted": status.RESOURCE_EXHAUSTED,
  unauthenticated: status.UNAUTHENTICATED,
  unavailable: status.UNAVAILABLE,
  unimplemented: status.UNIMPLEMENTED,
};

const CODES = new Map<number, ErrorCode>(
  Object.entries(GRPC_STATUS).map(([code, number]) => [number, code as ErrorCode]),
);

/** A client-side gRPC failure as ours. */
export function fromGrpcError(error: unknown, what: string): DaemonError {
  const number = error instanceof Error && "code" in error ? Number(error.code) : Number.NaN;
  return new DaemonError(CODES.get(number) ?? "internal", what, { cause: error });
}

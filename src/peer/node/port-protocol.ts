/**
 * What the main thread and the node's worker say to each other over a MessagePort. Calls in either
 * direction are numbered by their caller; every call is answered once.
 */
import { DaemonError, errorCode, errorMessage } from "../../base/errors.ts";
import type { ErrorCode } from "../../base/errors.ts";
import type { LogFields, LogLevel } from "../../base/log.ts";
import type { PeerRef } from "../peer-ref.ts";
import type { PeerNodeConfig } from "./config.ts";
import type { RankedMembers } from "./member-ranking.ts";
import type { MembersReport } from "./report.ts";
import type { ComplaintReason, Position } from "../tree/index.ts";
import type { TreesReport } from "./tree-port.ts";

/** `workerData`. */
export interface WorkerStart {
  readonly config: PeerNodeConfig;
  readonly logLevel: LogLevel;
}

/** What a call gives; a worker answers each question with its own type. */
export interface Answers {
  readonly token: boolean;
  readonly members: MembersReport;
  readonly rank: RankedMembers;
  readonly trees: TreesReport;
  readonly "push-pull": Uint8Array;
}

export type Question =
  | { readonly kind: "token"; readonly image: string; readonly bytes: number }
  | { readonly kind: "members" }
  | { readonly kind: "rank"; readonly key: string; readonly othersMax: number }
  | { readonly kind: "trees" }
  | { readonly kind: "push-pull"; readonly records: Uint8Array };

export type StreamCall =
  | { readonly kind: "push-pull"; readonly to: PeerRef; readonly records: Uint8Array }
  | { readonly kind: "probe"; readonly to: PeerRef };

export interface PortError {
  readonly code: ErrorCode;
  readonly message: string;
}

export type Outcome<T> = { readonly value: T } | { readonly error: PortError };

export type ToWorker =
  | { readonly kind: "join"; readonly image: string }
  | { readonly kind: "leave"; readonly image: string }
  | { readonly kind: "held"; readonly image: string; readonly blocks: number }
  | { readonly kind: "serving"; readonly image: string; readonly bytesPerSecond: number }
  | {
      readonly kind: "complain";
      readonly image: string;
      readonly about: string;
      readonly reason: ComplaintReason;
    }
  | { readonly kind: "ask"; readonly call: number; readonly question: Question }
  /** The caller of a question is gone. */
  | { readonly kind: "cancel"; readonly call: number }
  | {
      readonly kind: "stream-answer";
      readonly call: number;
      readonly outcome: Outcome<Uint8Array>;
    }
  | { readonly kind: "stop" };

export type FromWorker =
  | { readonly kind: "ready"; readonly self: PeerRef }
  | { readonly kind: "failed"; readonly error: PortError }
  | { readonly kind: "self"; readonly self: PeerRef }
  | {
      readonly kind: "position";
      readonly image: string;
      readonly position: Position | undefined;
    }
  | {
      readonly kind: "answer";
      readonly call: number;
      readonly outcome: Outcome<Answers[keyof Answers]>;
    }
  | { readonly kind: "stream-call"; readonly call: number; readonly stream: StreamCall }
  | { readonly kind: "stream-cancel"; readonly call: number }
  | {
      readonly kind: "log";
      readonly level: LogLevel;
      readonly event: string;
      readonly fields: LogFields;
    }
  | { readonly kind: "stopped" };

/** An error as plain data: what is posted loses its class. */
export function toPortError(error: unknown): PortError {
  return { code: errorCode(error), message: errorMessage(error) };
}

export function fromPortError({ code, message }: PortError): DaemonError {
  return new DaemonError(code, message);
}

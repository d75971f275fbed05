/** control.proto's messages: encoding by method name, frames, and their limit. */
import protobuf from "protobufjs";
import { protoPath } from "../base/package-root.ts";
import { DaemonError } from "../base/errors.ts";

/** A frame larger than this is a broken or hostile peer (inline read data is at most 16 MiB). */
export const FRAME_BYTES_MAX = 24 * 1024 * 1024;

export type EnvelopeKind = "REQUEST" | "ITEM" | "RESULT" | "ERROR" | "CANCEL";

export interface Envelope {
  readonly id: number;
  readonly kind: EnvelopeKind;
  readonly method: string;
  readonly payload: Uint8Array;
  readonly code: string;
  readonly message: string;
}

interface MethodTypes {
  readonly request: protobuf.Type;
  readonly response: protobuf.Type;
}

const KINDS: readonly EnvelopeKind[] = ["REQUEST", "ITEM", "RESULT", "ERROR", "CANCEL"];

/** Numbers, not Long objects: every u64 of the protocol is a size or offset below 2^53. */
const TO_OBJECT: protobuf.IConversionOptions = {
  longs: Number,
  defaults: true,
  arrays: true,
  objects: true,
};

let loaded: { methods: Map<string, MethodTypes>; envelope: protobuf.Type } | undefined;

function load(): { methods: Map<string, MethodTypes>; envelope: protobuf.Type } {
  if (loaded !== undefined) return loaded;
  const root = protobuf.loadSync(protoPath("control.proto"));
  const space = root.lookup("faasnet.control.v1") as protobuf.Namespace;
  const methods = new Map<string, MethodTypes>();
  for (const service of space.nestedArray) {
    if (!(service instanceof protobuf.Service)) continue;
    for (const method of service.methodsArray) {
      methods.set(`${service.name}.${method.name}`, {
        request: space.lookupType(method.requestType),
        response: space.lookupType(method.responseType),
      });
    }
  }
  loaded = { methods, envelope: space.lookupType("Envelope") };
  return loaded;
}

function typesOf(method: string): MethodTypes {
  const types = load().methods.get(method);
  if (types === undefined) throw new DaemonError("unimplemented", `no such method: ${method}`);
  return types;
}

function encode(type: protobuf.Type, message: object): Uint8Array {
  return type.encode(type.fromObject(message)).finish();
}

function decode(type: protobuf.Type, bytes: Uint8Array): unknown {
  try {
    return type.toObject(type.decode(bytes), TO_OBJECT);
  } catch (error) {
    throw new DaemonError("invalid-argument", `malformed ${type.name}`, { cause: error });
  }
}

export function encodeRequest(method: string, message: object): Uint8Array {
  return encode(typesOf(method).request, message);
}

export function decodeRequest(method: string, payload: Uint8Array): unknown {
  return decode(typesOf(method).request, payload);
}

export function encodeResponse(method: string, message: object): Uint8Array {
  return encode(typesOf(method).response, message);
}

export function decodeResponse(method: string, payload: Uint8Array): unknown {
  return decode(typesOf(method).response, payload);
}

const NO_BYTES = new Uint8Array(0);

export function encodeFrame(envelope: Partial<Envelope> & Pick<Envelope, "id" | "kind">): Buffer {
  const type = load().envelope;
  const body = type.encode({ ...envelope, kind: KINDS.indexOf(envelope.kind) }).finish();
  if (body.length > FRAME_BYTES_MAX) {
    throw new DaemonError("resource-exhausted", `control frame of ${body.length} bytes`);
  }
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32LE(body.length, 0);
  frame.set(body, 4);
  return frame;
}

/**
 * Splits a byte stream into envelopes; keeps at most one unfinished frame. Payloads are views of
 * the pieces pushed, which the caller must not reuse (a socket's are its reader's own).
 */
export class FrameReader {
  #pending: Buffer[] = [];
  #pendingBytes = 0;

  /** Throws `invalid-argument` on an oversized or malformed frame. */
  push(piece: Buffer): Envelope[] {
    this.#pending.push(piece);
    this.#pendingBytes += piece.length;
    const envelopes: Envelope[] = [];
    for (;;) {
      const length = this.#frameLength();
      if (length === undefined || this.#pendingBytes < 4 + length) return envelopes;
      const all = this.#joined();
      envelopes.push(parseEnvelope(all.subarray(4, 4 + length)));
      const rest = all.subarray(4 + length);
      this.#pending = rest.length > 0 ? [rest] : [];
      this.#pendingBytes = rest.length;
    }
  }

  /** All pending bytes as one piece; copies only when there are several. */
  #joined(): Buffer {
    const only = this.#pending.length === 1 ? this.#pending[0] : undefined;
    if (only !== undefined) return only;
    const all = Buffer.concat(this.#pending);
    this.#pending = [all];
    return all;
  }

  #frameLength(): number | undefined {
    if (this.#pendingBytes < 4) return undefined;
    const first = this.#pending[0];
    const head = first !== undefined && first.length >= 4 ? first : this.#joined();
    const length = head.readUInt32LE(0);
    if (length > FRAME_BYTES_MAX) {
      throw new DaemonError("invalid-argument", `control frame of ${length} bytes`);
    }
    return length;
  }
}

function parseEnvelope(bytes: Uint8Array): Envelope {
  const value = decode(load().envelope, bytes) as Record<string, unknown>;
  const kind = KINDS[value["kind"] as number];
  if (kind === undefined) throw new DaemonError("invalid-argument", "unknown envelope kind");
  const payload = value["payload"];
  return {
    id: value["id"] as number,
    kind,
    method: value["method"] as string,
    payload: payload instanceof Uint8Array ? payload : NO_BYTES,
    code: value["code"] as string,
    message: value["message"] as string,
  };
}

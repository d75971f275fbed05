/** A manifest or config from one member to another: a head that says what it is, then its bytes. */
import { raceAbort } from "../../base/abort.ts";
import { DaemonError } from "../../base/errors.ts";
import { DOCUMENT_BYTES_MAX, tryParseDigest } from "../../oci/index.ts";
import type { PeerReply } from "./connections.ts";
import { FrameReader } from "./frame-reader.ts";
import type { FrameSender } from "./frame-sender.ts";
import { FRAME, decodeTick, malformedFrame } from "./frames.ts";
import { TAG_AGE_MS_MAX } from "./limits.ts";
import type { StreamHandlers } from "./peer-streams.ts";
import { asRecord, decodeError } from "./protocol.ts";
import type { DocumentQuestion, SharedDocument, SharedDocumentProvider } from "./providers.ts";
import { failWith } from "./stream-replies.ts";

/** RFC 6838 4.2 on each side of the slash; also what may stand in a header. */
const MEDIA_TYPE = /^[\w.+!#$&^-]{1,127}\/[\w.+!#$&^-]{1,127}$/;

/** What a member said: the document, or why it does not give it. */
export type DocumentReply =
  | { readonly kind: "document"; readonly document: SharedDocument }
  | { readonly kind: "refused"; readonly error: DaemonError };

type Head = Omit<SharedDocument, "bytes"> & { readonly size: number };

/** Ticks go out until the document is there. */
export async function sendDocument(options: {
  readonly question: DocumentQuestion;
  readonly shared: SharedDocumentProvider;
  readonly sender: FrameSender;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { question, shared, sender, signal } = options;
  try {
    const found = await raceAbort(shared.answer(question, { signal }), signal);
    const { bytes, mediaType, digest, ageMs = Infinity } = found;
    const age = ageMs <= TAG_AGE_MS_MAX ? ageMs : null;
    const head = { mediaType, digest, size: bytes.length, ageMs: age };
    sender.frame(FRAME.document, Buffer.from(JSON.stringify(head)));
    sender.data(bytes);
    sender.finish();
  } catch (error) {
    if (!signal.aborted) failWith(sender, error);
  } finally {
    sender[Symbol.dispose]();
  }
}

/** Rejects with `data-loss` for a malformed reply, `unavailable` for one that broke off. */
export async function readDocument(
  reply: PeerReply,
  handlers: StreamHandlers,
): Promise<DocumentReply> {
  const { signal, peerId } = handlers;
  const pieces: Buffer[] = [];
  let length = 0;
  let head: Head | undefined;
  let refusal: DaemonError | undefined;
  let reader: FrameReader | undefined;
  const answered = new Promise<DocumentReply>((resolve, reject) => {
    reader = new FrameReader(reply.response, {
      onSign: () => {
        handlers.onSign();
      },
      onFrame: (type, payload) => {
        if (type === FRAME.tick) handlers.onTick(decodeTick(payload));
        else if (type === FRAME.failed) refusal = decodeError(payload.subarray(4), peerId);
        else if (type === FRAME.document && head === undefined) head = parseHead(payload);
        else throw malformedFrame(`frame type ${type} in a document`);
      },
      onData: (piece) => {
        length += piece.length;
        if (head === undefined || length > head.size) throw malformedFrame("more than a document");
        pieces.push(Buffer.from(piece));
      },
      onEnd: (end) => {
        if (end.kind !== "complete") reject(end.error);
        else if (refusal !== undefined) resolve({ kind: "refused", error: refusal });
        else if (length === head?.size) {
          const { mediaType, digest, ageMs } = head;
          const document = { bytes: Buffer.concat(pieces), mediaType, digest, ageMs };
          resolve({ kind: "document", document });
        } else reject(malformedFrame("less than a document"));
      },
    });
  });
  try {
    return await raceAbort(answered, signal);
  } finally {
    reader?.close();
  }
}

/** `data-loss` when malformed. */
export function parseHead(payload: Uint8Array): Head {
  const text = Buffer.from(payload.buffer, payload.byteOffset, payload.length).toString("utf8");
  let fields: Record<string, unknown>;
  try {
    fields = asRecord(JSON.parse(text) as unknown, "document");
  } catch (error) {
    throw new DaemonError("data-loss", "malformed reply: a document", { cause: error });
  }
  const { mediaType, digest: digestText, size, ageMs } = fields;
  const digest = typeof digestText === "string" ? tryParseDigest(digestText) : undefined;
  if (digest === undefined || !isCount(size, DOCUMENT_BYTES_MAX))
    throw malformedFrame("a document");
  if (typeof mediaType !== "string" || !MEDIA_TYPE.test(mediaType))
    throw malformedFrame("its type");
  return { mediaType, digest, size, ageMs: parseAge(ageMs) };
}

function parseAge(ageMs: unknown): number | undefined {
  if (ageMs === null) return undefined;
  if (typeof ageMs === "number" && ageMs >= 0 && ageMs <= TAG_AGE_MS_MAX) return ageMs;
  throw malformedFrame("a document's age");
}

function isCount(value: unknown, max: number): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= max;
}

/**
 * Replies of HTTP/1.1 (RFC 9112) as bytes of a connection: head, and a body that has a length or is
 * chunked. As much of it as a block server sends; anything else is refused. Body bytes are views of
 * what was pushed, nothing of them is copied: node:http copies each, and passes it through two
 * streams, which for records of 16 KiB was a fifth of a relay's time.
 */
import { DaemonError } from "../../base/errors.ts";
import { HEADER_BYTES_MAX } from "./limits.ts";

const HEAD_END = "\r\n\r\n";
const STATUS_LINE = /^HTTP\/1\.1 (\d{3})(?: [^\r\n]*)?$/;
const HEADER_LINE = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*$/;
const HEADERS_MAX = 100;
/** A chunk's size in hex, extensions behind it, CRLF; a line of a trailer. */
const LINE_BYTES_MAX = 1024;
const CHUNK_SIZE = /^([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?\r$/;
const LF = 0x0a;

export interface ReplyHead {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  /** The connection serves for another request afterwards. */
  readonly isKept: boolean;
}

export interface ReplySink {
  onHead(head: ReplyHead): void;
  /** A view, valid during the call. */
  onBody(bytes: Buffer): void;
  /** The reply is complete. */
  onEnd(): void;
}

/** `idle`: no reply is due. `line`: the size of a chunk. `crlf`: the end of a chunk. */
type State = "idle" | "head" | "sized" | "line" | "chunk" | "crlf" | "trailer";

export class ReplyParser {
  readonly #sink: ReplySink;
  #state: State = "idle";
  #head: Buffer = Buffer.alloc(0);
  /** Bytes of the body, or of the chunk, that are still to come. */
  #left = 0;
  #line = "";
  #isStopped = false;

  constructor(sink: ReplySink) {
    this.#sink = sink;
  }

  /** A request was sent: a reply is due. */
  expect(): void {
    this.#state = "head";
  }

  /** Whatever is pushed from now on is passed over; for callbacks that end the connection. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Throws `unavailable` for what is no reply; the connection is of no use afterwards. */
  push(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length && !this.#isStopped) {
      const rest = at === 0 ? bytes : bytes.subarray(at);
      at += this.#take(rest);
    }
  }

  /** Takes some bytes; returns how many. */
  #take(bytes: Buffer): number {
    switch (this.#state) {
      case "idle":
        throw malformed("bytes that nobody asked for");
      case "head":
        return this.#takeHead(bytes);
      case "sized":
      case "chunk":
        return this.#takeBody(bytes);
      default:
        return this.#takeLine(bytes);
    }
  }

  #takeHead(bytes: Buffer): number {
    const known = this.#head.length;
    const joined = known === 0 ? bytes : Buffer.concat([this.#head, bytes]);
    const end = joined.indexOf(HEAD_END, Math.max(0, known - HEAD_END.length), "latin1");
    if ((end < 0 ? joined.length : end) > HEADER_BYTES_MAX) throw malformed("a head too long");
    if (end < 0) {
      this.#head = Buffer.from(joined);
      return bytes.length;
    }
    this.#head = Buffer.alloc(0);
    const taken = end + HEAD_END.length - known;
    const head = parseHead(joined.toString("latin1", 0, end));
    if (head.status < 200) return taken; // an interim reply: the real one follows
    const length = bodyLength(head);
    this.#state = length === undefined ? "line" : "sized";
    this.#left = length ?? 0;
    this.#sink.onHead(head);
    if (length === 0 && !this.#isStopped) this.#end();
    return taken;
  }

  #takeBody(bytes: Buffer): number {
    const length = Math.min(this.#left, bytes.length);
    this.#left -= length;
    const isOver = this.#left === 0;
    const isChunk = this.#state === "chunk";
    if (isOver && isChunk) this.#state = "crlf";
    this.#sink.onBody(length === bytes.length ? bytes : bytes.subarray(0, length));
    if (isOver && !isChunk && !this.#isStopped) this.#end();
    return length;
  }

  #takeLine(bytes: Buffer): number {
    const end = bytes.indexOf(LF);
    const taken = end < 0 ? bytes.length : end + 1;
    if (this.#line.length + taken > LINE_BYTES_MAX) throw malformed("a line too long");
    this.#line += bytes.toString("latin1", 0, end < 0 ? taken : end);
    if (end < 0) return taken;
    const line = this.#line;
    this.#line = "";
    if (this.#state === "line") this.#beginChunk(line);
    else if (this.#state === "trailer") {
      if (line === "\r") this.#end();
    } else {
      if (line !== "\r") throw malformed("a chunk's end");
      this.#state = "line";
    }
    return taken;
  }

  #beginChunk(line: string): void {
    const [, size] = CHUNK_SIZE.exec(line) ?? [];
    if (size === undefined) throw malformed("a chunk's size");
    this.#left = Number.parseInt(size, 16);
    this.#state = this.#left === 0 ? "trailer" : "chunk";
  }

  #end(): void {
    this.#state = "idle";
    this.#sink.onEnd();
  }
}

function parseHead(text: string): ReplyHead {
  const [first = "", ...lines] = text.split("\r\n");
  const [, status] = STATUS_LINE.exec(first) ?? [];
  if (status === undefined || lines.length > HEADERS_MAX) throw malformed("a head");
  const headers = new Map<string, string>();
  for (const line of lines) {
    const [, name, value] = HEADER_LINE.exec(line) ?? [];
    if (name === undefined || value === undefined) throw malformed("a header");
    const key = name.toLowerCase();
    if (headers.has(key) && isFraming(key)) throw malformed(`two headers ${key}`);
    headers.set(key, value);
  }
  const isKept = headers.get("connection")?.toLowerCase() !== "close";
  return { status: Number(status), headers, isKept };
}

function isFraming(name: string): boolean {
  return name === "content-length" || name === "transfer-encoding";
}

/** Undefined: chunked. Source: RFC 9112 6.3. */
function bodyLength({ status, headers }: ReplyHead): number | undefined {
  const coding = headers.get("transfer-encoding");
  const length = headers.get("content-length");
  if (status === 204 || status === 304) return 0;
  if (coding !== undefined) {
    if (coding.toLowerCase() !== "chunked" || length !== undefined) throw malformed("a coding");
    return undefined;
  }
  if (length === undefined || !/^\d{1,15}$/.test(length)) throw malformed("a length");
  return Number(length);
}

function malformed(what: string): DaemonError {
  return new DaemonError("unavailable", `malformed HTTP reply: ${what}`);
}

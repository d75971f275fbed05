/** UDP packets as they pass a cable: recorded beside a node, and sent again by somebody else. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { compiledProgram } from "./compiled.ts";
import type { Lab } from "../lab/index.ts";

const HARDWARE_BYTES = 6;
const ETHERNET_BYTES = 14;
const IPV4_BYTES = 20;
const UDP_BYTES = 8;
const HEADER_BYTES = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES;
/** Offsets within a frame. Source: RFC 791 3.1, RFC 768. */
const AT = { ipChecksum: 24, source: 26, target: 30, udpChecksum: 40 } as const;
const FRAMES_MAX = 20_000;

/** Ethernet, IPv4 without options, UDP. */
export type Frame = Buffer;

export function sourceOf(frame: Frame): string {
  return [...frame.subarray(AT.source, AT.source + 4)].join(".");
}

export function targetOf(frame: Frame): string {
  return [...frame.subarray(AT.target, AT.target + 4)].join(".");
}

export function payloadOf(frame: Frame): Buffer {
  // A frame of less than 60 bytes may be padded: UDP's length counts.
  const length = frame.readUInt16BE(ETHERNET_BYTES + IPV4_BYTES + 4);
  return frame.subarray(HEADER_BYTES, ETHERNET_BYTES + IPV4_BYTES + length);
}

/** The same packet to another address; `hardware` as `hardwareOf` gives it. */
export function readdressed(frame: Frame, address: string, hardware: Buffer): Frame {
  const copy = Buffer.from(frame);
  hardware.copy(copy, 0);
  copy.set(address.split(".").map(Number), AT.target);
  return finished(copy);
}

/** The hardware address that packets for an address are sent to. */
export function hardwareOf(frames: readonly Frame[], address: string): Buffer {
  const frame = frames.find((each) => targetOf(each) === address);
  if (frame === undefined) throw new Error(`no packet for ${address} was recorded`);
  return frame.subarray(0, HARDWARE_BYTES);
}

/** A recorded checksum is not complete (offloading); 0 is none. Source: RFC 768. */
function finished(frame: Frame): Frame {
  const copy = Buffer.from(frame);
  copy.writeUInt16BE(0, AT.udpChecksum);
  copy.writeUInt16BE(0, AT.ipChecksum);
  let sum = 0;
  for (let at = ETHERNET_BYTES; at < ETHERNET_BYTES + IPV4_BYTES; at += 2) {
    sum += copy.readUInt16BE(at);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  copy.writeUInt16BE(~sum & 0xffff, AT.ipChecksum);
  return copy;
}

/** Where frames pass: a namespace's wrapper and the interface there. */
export interface WirePoint {
  readonly wrapper: readonly string[];
  readonly port: string;
}

async function start(lab: Lab, point: WirePoint, args: readonly string[]): Promise<ChildProcess> {
  const [enter = "", ...rest] = [...point.wrapper, await compiledProgram("packets"), ...args];
  return spawn("setpriv", ["--pdeathsig", "KILL", "--", enter, ...rest], {
    env: { ...process.env, ...lab.env },
    stdio: ["pipe", "pipe", "inherit"],
    cwd: "/",
  });
}

/** Records what passes from and to a UDP port; the first FRAMES_MAX frames are kept. */
export class PacketTape implements AsyncDisposable {
  readonly frames: Frame[] = [];
  readonly #child: ChildProcess;
  #rest = Buffer.alloc(0);

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout?.on("data", (piece: Buffer) => {
      this.#add(piece);
    });
  }

  static async start(lab: Lab, point: WirePoint, udpPort: number): Promise<PacketTape> {
    const child = await start(lab, point, ["capture", point.port, String(udpPort)]);
    return lab.use(new PacketTape(child));
  }

  #add(piece: Buffer): void {
    let bytes = Buffer.concat([this.#rest, piece]);
    while (bytes.length >= 2) {
      const length = bytes.readUInt16BE(0);
      if (bytes.length < 2 + length) break;
      const frame = Buffer.from(bytes.subarray(2, 2 + length));
      if (this.frames.length < FRAMES_MAX) this.frames.push(frame);
      bytes = bytes.subarray(2 + length);
    }
    this.#rest = Buffer.from(bytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }
}

/** Sends frames as they are, with their senders' addresses, from another place. */
export async function sendFrames(
  lab: Lab,
  point: WirePoint,
  frames: readonly Frame[],
): Promise<void> {
  const child = await start(lab, point, ["send", point.port]);
  const ended = once(child, "exit");
  for (const frame of frames.map(finished)) {
    const length = Buffer.alloc(2);
    length.writeUInt16BE(frame.length);
    child.stdin?.write(Buffer.concat([length, frame]));
  }
  child.stdin?.end();
  const [status] = (await ended) as [number | null];
  if (status !== 0) throw new Error(`packets send: status ${status ?? -1}`);
}

/**
 * A raw inflater that stops at every deflate block border. node:zlib's public streams cannot do
 * that, but the engine below them can: flush value Z_BLOCK through `_handle.writeSync`. That is
 * undocumented (pngjs, widely used, leans on it too), so it is only used on the Node majors below,
 * on which it was tried, and after a self-test.
 */
import { constants, createInflateRaw } from "node:zlib";
import { DaemonError } from "../../base/errors.ts";

/** Node majors on which the engine's interface was checked. */
const STEPPER_NODE_MAJORS: readonly number[] = [20, 22, 24];

/** The parts of node:zlib's engine that are used. Source: Node lib/zlib.js, processChunkSync. */
interface Engine {
  readonly _handle: {
    writeSync(
      flush: number,
      input: Uint8Array,
      inputOffset: number,
      inputLength: number,
      output: Uint8Array,
      outputOffset: number,
      outputLength: number,
    ): void;
    reset(): void;
    onerror: (message: string, errorNumber: number, code: string) => void;
  };
  /** [output left, input left] after a write. */
  readonly _writeState: Uint32Array;
  close(): void;
}

export interface InflateStep {
  readonly consumed: number;
  readonly produced: number;
  /** At a border between deflate blocks (or the stream's end). */
  readonly atBorder: boolean;
  /** The stream has ended; nothing was consumed. */
  readonly atEnd: boolean;
}

export function isStepperSupported(nodeVersion: string): boolean {
  return STEPPER_NODE_MAJORS.includes(Number(nodeVersion.split(".")[0]));
}

export class InflateStepper {
  readonly #engine: Engine;
  #failure: string | undefined;

  constructor() {
    if (!isStepperSupported(process.versions.node)) {
      throw new DaemonError(
        "unimplemented",
        `gzip layers cannot be mapped on Node ${process.versions.node}, only on the majors ` +
          STEPPER_NODE_MAJORS.join(", "),
      );
    }
    this.#engine = openEngine();
    this.#engine._handle.onerror = (message) => {
      this.#failure = message;
    };
  }

  /** Inflates until a block border, the end of the input or of the output room. */
  step(
    input: Uint8Array,
    inputOffset: number,
    output: Uint8Array,
    outputRange: { readonly start: number; readonly end: number },
  ): InflateStep {
    const inputLength = input.length - inputOffset;
    const outputLength = outputRange.end - outputRange.start;
    this.#engine._handle.writeSync(
      constants.Z_BLOCK,
      input,
      inputOffset,
      inputLength,
      output,
      outputRange.start,
      outputLength,
    );
    if (this.#failure !== undefined) {
      throw new DaemonError("data-loss", `gzip: ${this.#failure}`);
    }
    const outputLeft = this.#engine._writeState[0] ?? 0;
    const inputLeft = this.#engine._writeState[1] ?? 0;
    const consumed = inputLength - inputLeft;
    const produced = outputLength - outputLeft;
    const atBorder = inputLeft > 0 && outputLeft > 0;
    return { consumed, produced, atBorder, atEnd: atBorder && consumed === 0 && produced === 0 };
  }

  /** Ready for another stream. */
  reset(): void {
    this.#engine._handle.reset();
  }

  close(): void {
    this.#engine.close();
  }
}

function openEngine(): Engine {
  const stream: unknown = createInflateRaw();
  const engine = stream as Engine;
  const isUsable =
    typeof engine._handle.writeSync === "function" && engine._writeState instanceof Uint32Array;
  if (!isUsable) {
    throw new DaemonError("unimplemented", "node:zlib's engine is not as expected");
  }
  return engine;
}

/** Reads a tap as another node's connection would, and notes what it got. */
import type { BlobTap } from "../../../src/block/index.ts";
import { errorCode } from "../../../src/base/errors.ts";
import type { ErrorCode } from "../../../src/base/errors.ts";

export class TapReader {
  readonly parts: Buffer[] = [];
  /** How `pieces` ended. */
  end: "open" | "whole" | ErrorCode = "open";
  verdict: "open" | "right" | ErrorCode = "open";
  readonly done: Promise<void>;

  constructor(tap: BlobTap) {
    tap.verdict.then(
      () => {
        this.verdict = "right";
      },
      (error: unknown) => {
        this.verdict = errorCode(error);
      },
    );
    this.done = this.#read(tap);
  }

  get bytes(): Buffer {
    return Buffer.concat(this.parts);
  }

  async #read(tap: BlobTap): Promise<void> {
    try {
      for await (const piece of tap.pieces) this.parts.push(Buffer.from(piece));
      this.end = "whole";
    } catch (error) {
      this.end = errorCode(error);
    }
  }
}

/** Contents of one simulated file: bytes, and which allocation units hold them. */

export const UNIT_BYTES = 4096;

export type Change =
  | { readonly kind: "write"; readonly position: number; readonly bytes: Buffer }
  | { readonly kind: "truncate"; readonly size: number }
  /** Frees whole units inside, zeroes the rest; the size stays. */
  | { readonly kind: "punch"; readonly start: number; readonly end: number };

/** What of a change has reached the disk. */
export interface Survival {
  /** Its size, cut or hole has. */
  readonly isMetadata: boolean;
  readonly sectorBytes: number;
  readonly isWritten: (sector: number) => boolean;
  /** What units hold that were allocated and not written. */
  readonly fill: number;
}

export class Content {
  #bytes = Buffer.alloc(0);
  #size = 0;
  readonly #units: Set<number>;

  constructor(from?: Content) {
    this.#units = new Set(from === undefined ? [] : from.#units);
    if (from === undefined) return;
    this.#bytes = Buffer.from(from.#bytes.subarray(0, from.#size));
    this.#size = from.#size;
  }

  static of(bytes: Uint8Array): Content {
    const content = new Content();
    content.apply({ kind: "write", position: 0, bytes: Buffer.from(bytes) });
    return content;
  }

  copy(): Content {
    return new Content(this);
  }

  get size(): number {
    return this.#size;
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#size);
  }

  get allocatedBytes(): number {
    return this.#units.size * UNIT_BYTES;
  }

  apply(change: Change): void {
    if (change.kind === "write") this.#write(change.position, change.bytes);
    else if (change.kind === "truncate") this.#resize(change.size);
    else this.#punch(change.start, change.end);
  }

  applyPart(change: Change, survival: Survival): void {
    if (change.kind === "truncate") {
      if (survival.isMetadata) this.#resize(change.size);
    } else if (change.kind === "punch") {
      this.#punchPart(change.start, change.end, survival);
    } else {
      this.#writePart(change.position, change.bytes, survival);
    }
  }

  #writePart(position: number, bytes: Buffer, survival: Survival): void {
    const end = position + bytes.length;
    if (survival.isMetadata) this.#allocate(position, end, survival.fill);
    forSectors(position, end, survival.sectorBytes, (sector, from, to) => {
      const last = Math.min(to, this.#size);
      if (!survival.isWritten(sector) || last <= from) return;
      this.#write(from, bytes.subarray(from - position, last - position));
    });
  }

  #punchPart(start: number, end: number, survival: Survival): void {
    const wholeStart = Math.ceil(start / UNIT_BYTES) * UNIT_BYTES;
    const wholeEnd = Math.max(wholeStart, Math.floor(end / UNIT_BYTES) * UNIT_BYTES);
    if (survival.isMetadata) this.#punch(wholeStart, wholeEnd);
    const edges = [
      [start, Math.min(end, wholeStart)],
      [Math.max(start, wholeEnd), end],
    ] as const;
    for (const [edgeStart, edgeEnd] of edges) {
      if (edgeEnd <= edgeStart) continue;
      forSectors(edgeStart, edgeEnd, survival.sectorBytes, (sector, from, to) => {
        if (survival.isWritten(sector)) this.#punch(from, Math.min(to, this.#size));
      });
    }
  }

  /** The file has grown and has its blocks; whether they were written is another question. */
  #allocate(position: number, end: number, fill: number): void {
    this.#grow(end);
    for (let unit = Math.floor(position / UNIT_BYTES); unit * UNIT_BYTES < end; unit += 1) {
      if (this.#units.has(unit)) continue;
      this.#units.add(unit);
      const from = unit * UNIT_BYTES;
      this.#bytes.fill(fill, from, Math.min(from + UNIT_BYTES, this.#size));
    }
  }

  #write(position: number, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    const end = position + bytes.length;
    this.#grow(end);
    this.#bytes.set(bytes, position);
    for (let unit = Math.floor(position / UNIT_BYTES); unit * UNIT_BYTES < end; unit += 1) {
      this.#units.add(unit);
    }
  }

  #resize(size: number): void {
    if (size < this.#size) {
      this.#bytes.fill(0, size, this.#size);
      for (const unit of this.#units) if (unit * UNIT_BYTES >= size) this.#units.delete(unit);
      this.#size = size;
    } else {
      this.#grow(size);
    }
  }

  #punch(start: number, end: number): void {
    if (end <= start) return;
    this.#bytes.fill(0, Math.min(start, this.#size), Math.min(end, this.#size));
    const last = Math.floor(end / UNIT_BYTES);
    for (let unit = Math.ceil(start / UNIT_BYTES); unit < last; unit += 1) {
      this.#units.delete(unit);
    }
  }

  #grow(size: number): void {
    if (size <= this.#size) return;
    if (size > this.#bytes.length) {
      const next = Buffer.alloc(Math.max(size, 2 * this.#bytes.length));
      this.#bytes.copy(next, 0, 0, this.#size);
      this.#bytes = next;
    }
    this.#size = size;
  }
}

/** The range of bytes that readers may find different after the change. */
export function changed(change: Change, sizeBefore: number): { start: number; end: number } {
  switch (change.kind) {
    case "write":
      return { start: change.position, end: change.position + change.bytes.length };
    case "truncate":
      return { start: Math.min(change.size, sizeBefore), end: Math.max(change.size, sizeBefore) };
    case "punch":
      return { start: change.start, end: change.end };
  }
}

function forSectors(
  start: number,
  end: number,
  sectorBytes: number,
  visit: (sector: number, from: number, to: number) => void,
): void {
  for (let sector = Math.floor(start / sectorBytes); sector * sectorBytes < end; sector += 1) {
    const from = Math.max(start, sector * sectorBytes);
    visit(sector, from, Math.min(end, (sector + 1) * sectorBytes));
  }
}

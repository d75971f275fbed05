/** The places that images are had from, by their text, and the read path's view of them. */
import { LRUCache } from "lru-cache";
import { FETCH_PRIORITY } from "../block/index.ts";
import type { BlobRun, BlockSource, SourceFetchOptions } from "../block/index.ts";
import { openImageSource, parseImageLocation } from "../registry/index.ts";
import type { FetchPriority, ImageSource, RegistryPool } from "../registry/index.ts";

/** Open sources; an archive keeps a file descriptor. */
const SOURCES_MAX = 256;
/** Sources of one blob that reads may fall back to. */
const SOURCES_PER_BLOB_MAX = 8;

export class ImageSources {
  readonly #registries: RegistryPool;
  readonly #open: LRUCache<string, ImageSource>;

  constructor(registries: RegistryPool) {
    this.#registries = registries;
    this.#open = new LRUCache({ max: SOURCES_MAX });
  }

  async get(text: string): Promise<ImageSource> {
    const known = this.#open.get(text);
    if (known !== undefined) return known;
    const source = await openImageSource(text, { registries: this.#registries }, { baseDir: "/" });
    this.#open.set(text, source);
    return source;
  }

  /** Of a blob that all of `places` are said to hold, in this order. */
  blockSources(places: readonly string[]): BlockSource[] {
    return places
      .slice(0, SOURCES_PER_BLOB_MAX)
      .map((place, index) => new ImageBlockSource(this, place, index));
  }
}

/** `registry` or `archive`; a second and further place has a number, as names must differ. */
class ImageBlockSource implements BlockSource {
  readonly name: string;
  readonly origin: string;
  readonly #sources: ImageSources;
  readonly #place: string;

  constructor(sources: ImageSources, place: string, index: number) {
    const location = parseImageLocation(place);
    const kind = location.transport === "registry" ? "registry" : "archive";
    this.name = index === 0 ? kind : `${kind}-${index + 1}`;
    this.origin = location.transport === "registry" ? location.reference.domain : place;
    this.#sources = sources;
    this.#place = place;
  }

  async fetch(run: BlobRun, options: SourceFetchOptions): Promise<AsyncIterable<Uint8Array>> {
    const source = await this.#sources.get(this.#place);
    return source.open(run.blobDigest, run.range, {
      signal: options.signal,
      priority: registryPriority(options.priority),
      size: run.blobBytes,
      verify: false, // the resolver checks every block
    });
  }

  onBadBlock(run: BlobRun): void {
    this.#sources
      .get(this.#place)
      .then((source) => source.reportCorrupt?.(run.blobDigest))
      .catch(() => undefined); // it cannot even be opened: there is nobody to tell
  }
}

function registryPriority(priority: SourceFetchOptions["priority"]): FetchPriority {
  if (priority === FETCH_PRIORITY.reader) return "demand";
  return priority === FETCH_PRIORITY.fill ? "background" : "prefetch";
}

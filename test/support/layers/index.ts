/** Layers for tests: tar archives, also malformed ones, in every compression. */
export * from "./compress.ts";
export * from "./layer-builder.ts";
export * from "./deflate-borders.ts";

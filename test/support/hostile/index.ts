/** Images that want to do harm, and how to try them. */
export * from "./attempt.ts";
export * from "./cases.ts";
export * from "./image.ts";
export * from "./large.ts";

/** Equality as a property: generated images, the kernel's trees of them, and ours. */
export { describeCounterexample, shrink } from "./check.ts";
export { compareImages } from "./run.ts";

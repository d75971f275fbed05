/** Processes killed at random moments, by a plan that follows from a seed. */
export { partsOf, planOf, type Kill } from "./plan.ts";
export { KillSession, type KillSessionOptions } from "./session.ts";

/** Framed control.proto messages between the roles of the daemon. */
export { ControlConnection } from "./connection.ts";
export type { CallOptions, Handler, HandlerContext, Handlers } from "./connection.ts";
export { connectControl, ControlServer } from "./socket.ts";

/** Parts of answering an HTTP request that all resources share. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { DaemonError, errorCode, errorMessage } from "../../base/errors.ts";
import { encodeError, httpStatusOf } from "./protocol.ts";

/** A request's body; `invalid-argument` when it is longer, `canceled` when it breaks off. */
export async function readBody(request: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const announced = Number(request.headers["content-length"] ?? Number.NaN);
  if (announced > bytesMax) throw tooLong(bytesMax);
  return new Promise<Buffer>((resolve, reject) => {
    const pieces: Buffer[] = [];
    let length = 0;
    request.on("data", (piece: Buffer) => {
      length += piece.length;
      if (length > bytesMax) {
        request.pause();
        reject(tooLong(bytesMax));
        return;
      }
      pieces.push(piece);
    });
    request.on("end", () => {
      resolve(Buffer.concat(pieces));
    });
    request.on("error", (error) => {
      reject(new DaemonError("canceled", "the request broke off", { cause: error }));
    });
    request.on("close", () => {
      reject(new DaemonError("canceled", "the request broke off"));
    });
  });
}

function tooLong(bytesMax: number): DaemonError {
  return new DaemonError("invalid-argument", `the request is longer than ${bytesMax} bytes`);
}

/** Answers with the error, or cuts the reply off when it has begun. */
export function refuse(request: IncomingMessage, response: ServerResponse, error: unknown): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  const reason = new DaemonError(errorCode(error), errorMessage(error));
  const body = encodeError(reason);
  response.writeHead(httpStatusOf(reason.code), {
    "content-type": "application/json",
    "content-length": body.length,
    // What is left of the request is not worth reading.
    ...(request.complete ? {} : { connection: "close" }),
  });
  response.end(body);
}

/** Aborted when the other side leaves before the reply is complete. */
export function signalOf(response: ServerResponse): AbortSignal {
  const controller = new AbortController();
  response.on("error", () => undefined);
  response.on("close", () => {
    if (!response.writableFinished) {
      controller.abort(new DaemonError("canceled", "the other side has left"));
    }
  });
  return controller.signal;
}

/** Log lines: shape, levels, and no secrets. */
import assert from "node:assert/strict";
import { createLogger, redactText, silentLogger } from "../../../src/base/log.ts";
import type { LogFields, Logger, LogLevel } from "../../../src/base/log.ts";
import { DaemonError } from "../../../src/base/errors.ts";

function capture(
  level: LogLevel,
  use: (logger: Logger) => void,
  fields: LogFields = {},
): Record<string, unknown>[] {
  const lines: string[] = [];
  const logger = createLogger(level, fields, { write: (line) => lines.push(line) });
  use(logger);
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe("createLogger", () => {
  it("writes one JSON object a line with time, level, event and fields", () => {
    const [line] = capture("info", (logger) => {
      logger.child({ module: "registry" }).warn("blob-refetched", { attempt: 2 });
    });

    assert.match(String(line?.["time"]), /^\d{4}-\d\d-\d\dT/);
    assert.deepEqual(
      { ...line, time: undefined },
      { time: undefined, level: "warn", module: "registry", event: "blob-refetched", attempt: 2 },
    );
  });

  it("leaves out what is below its level", () => {
    const lines = capture("warn", (logger) => {
      logger.debug("a");
      logger.info("b");
      logger.warn("c");
      logger.error("d");
    });

    assert.deepEqual(
      lines.map((line) => line["event"]),
      ["c", "d"],
    );
  });

  it("flattens an error to its code and messages, without the stack", () => {
    const [line] = capture("info", (logger) => {
      const cause = new RangeError("inner");
      logger.error("read-failed", { err: new DaemonError("data-loss", "outer", { cause }) });
    });

    assert.deepEqual(line?.["err"], { code: "data-loss", message: "outer: inner" });
  });

  it("redacts secret fields and secrets in texts, nested and in child fields too", () => {
    const lines = capture(
      "debug",
      (logger) => {
        logger.child({ password: "hunter2" }).info("a", {
          authorization: "Bearer hunter2",
          request: { headers: { Authorization: "Basic aHVudGVyMg==" }, url: "http://u:hunter2@h/" },
          list: ["https://h/x?X-Amz-Signature=hunter2&a=1"],
          err: new DaemonError("unavailable", "GET https://h/b?sig=hunter2 answered 403"),
          refresh_token: "hunter2",
        });
      },
      { identityToken: "hunter2" },
    );

    const text = JSON.stringify(lines);
    assert.doesNotMatch(text, /hunter2|aHVudGVyMg/);
    assert.match(text, /a=1/);
    assert.match(text, /answered 403/);
  });
});

describe("redactText", () => {
  for (const [text, expected] of [
    ["plain text with token and bearer words", "plain text with token and bearer words"],
    ["authorization: Bearer abc.def-ghi", "authorization: Bearer [redacted]"],
    ["https://user:pw@host/v2/", "https:" + "//[redacted]@host/v2/"],
    [
      "http://h/?a=1&X-Amz-Credential=AKIA%2F1&b=2",
      "http://h/?a=1&X-Amz-Credential=[redacted]&b=2",
    ],
    ["http://h/b?se=1&sig=abc%3D", "http://h/b?se=1&sig=[redacted]"],
    ["localhost:5000/a/b@sha256:00", "localhost:5000/a/b@sha256:00"],
    ["http://localhost:5000/a@sha256:00", "http://localhost:5000/a@sha256:00"],
  ] as const) {
    it(`turns "${text}" into "${expected}"`, () => {
      assert.equal(redactText(text), expected);
    });
  }
});

describe("silentLogger", () => {
  it("takes everything and is its own child", () => {
    silentLogger.error("a");
    silentLogger.debug("b");

    assert.equal(silentLogger.child({}), silentLogger);
  });
});

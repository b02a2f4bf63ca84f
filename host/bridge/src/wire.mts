/**
 * JSON lines: one object a line, UTF-8, ended by LF, of a bounded length.
 *
 * Lines are cut as bytes and decoded whole, so a character is never cut. What is no line of the protocol can't be
 * skipped: nothing behind it can be trusted, so it is an error that ends the connection.
 */
import { Failure } from "./failure.mjs";
import { type HostFrame, MAX_LINE } from "./protocol.mjs";

const LF = 0x0a;

/** Collects chunks and hands out whole lines. */
export class LineReader {
  readonly #limit: number;
  #parts: Buffer[] = [];
  #length = 0;

  constructor(limit: number = MAX_LINE) {
    this.#limit = limit;
  }

  /** The lines that are whole with this chunk. Throws when one is longer than the limit. */
  push(chunk: Buffer): string[] {
    const lines: string[] = [];
    let from = 0;
    for (let at = chunk.indexOf(LF); at >= 0; at = chunk.indexOf(LF, from)) {
      this.#keep(chunk.subarray(from, at));
      lines.push(Buffer.concat(this.#parts, this.#length).toString("utf8"));
      this.#parts = [];
      this.#length = 0;
      from = at + 1;
    }
    if (from < chunk.length) this.#keep(chunk.subarray(from));
    return lines;
  }

  #keep(part: Buffer): void {
    this.#length += part.length;
    if (this.#length > this.#limit) {
      throw new Failure("limit", `pi-vers wrote a line of more than ${this.#limit} bytes`);
    }
    if (part.length > 0) this.#parts.push(part);
  }
}

/** Reads a line of the host; `undefined` for an empty one. Throws when it is no frame. */
export function decode(line: string): HostFrame | undefined {
  if (line.trim() === "") return undefined;
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new Failure("invalid", `pi-vers wrote what is no JSON: ${line.slice(0, 120)}`);
  }
  if (!isObject(value) || typeof value["t"] !== "string") {
    throw new Failure("invalid", `pi-vers wrote what is no frame: ${line.slice(0, 120)}`);
  }
  return value as unknown as HostFrame;
}

/** The line of a frame, with its LF. Throws when it is longer than either side may write. */
export function encode(frame: object, limit: number = MAX_LINE): Buffer {
  const line = Buffer.from(`${wellFormed(JSON.stringify(frame))}\n`, "utf8");
  if (line.length - 1 > limit) {
    throw new Failure("limit", `a message of ${line.length} bytes is more than the ${limit} that pi-vers reads`);
  }
  return line;
}

/**
 * JSON.stringify writes half a surrogate pair as an escape, which strict readers refuse: it becomes U+FFFD. All
 * escapes are walked through, so that `\\ud800` (a backslash and letters) stays what it is.
 */
function wellFormed(json: string): string {
  if (!json.includes("\\ud")) return json;
  return json.replace(/\\(?:u([0-9a-f]{4})|[^u])/g, (escape, hex: string | undefined) =>
    hex !== undefined && hex >= "d800" && hex <= "dfff" ? "\\ufffd" : escape,
  );
}

/** Whether it is an object with names, so neither null nor a list. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

import type { ErrorCode } from "./protocol.mjs";

/** Why something was not done, in a line for people, with the protocol's code for programs. */
export class Failure extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.name = "Failure";
    this.code = code;
  }
}

/** The line of whatever was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

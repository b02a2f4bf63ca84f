/**
 * Flags of the command line.
 *
 * A number is registered as a text: of the harnesses one hands a number flag's value over as a text and another ignores it. It
 * becomes a number here.
 */
import type { Api } from "./pi.mjs";
import type { FlagDeclaration } from "./protocol.mjs";

export class Flags {
  readonly #api: Api;
  #declared: FlagDeclaration[] = [];
  readonly #refused = new Set<string>();
  readonly #refuse: (message: string) => void;

  /** `refuse` is told once of each value that can't be used. */
  constructor(api: Api, refuse: (message: string) => void) {
    this.#api = api;
    this.#refuse = refuse;
  }

  register(flags: FlagDeclaration[]): void {
    const known = new Set(this.#declared.map((flag) => flag.name));
    for (const flag of flags.filter((flag) => !known.has(flag.name))) {
      const boolean = flag.type === "boolean";
      // An empty text is what a flag has that was not given: registered as its default it would look given.
      const standard = boolean ? flag.default === true : String(flag.default ?? "");
      this.#api.registerFlag(flag.name, {
        description: flag.description,
        type: boolean ? "boolean" : "string",
        ...(standard === "" ? {} : { default: standard }),
      });
    }
    this.#declared = flags;
  }

  /** What they are now, each of the type that its extension declared. */
  values(): Record<string, boolean | string | number> {
    const values: Record<string, boolean | string | number> = {};
    for (const flag of this.#declared) values[flag.name] = this.#value(flag, this.#api.getFlag(flag.name));
    return values;
  }

  #value(flag: FlagDeclaration, given: unknown): boolean | string | number {
    if (given === undefined || given === null) return flag.default;
    switch (flag.type) {
      case "boolean":
        return given === true || given === "true";
      case "string":
        return String(given);
      case "number": {
        const number = typeof given === "string" && given.trim() === "" ? Number.NaN : Number(given);
        if (Number.isFinite(number)) return number;
        if (!this.#refused.has(flag.name)) {
          this.#refused.add(flag.name);
          this.#refuse(`--${flag.name} ${String(given)} is no number: ${String(flag.default)} is used`);
        }
        return flag.default;
      }
    }
  }
}

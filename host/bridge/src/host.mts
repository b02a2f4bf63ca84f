/**
 * The host over time: one connection, and the next one when it died.
 *
 * It is started again by the next use, at most three times within a minute: a host that dies at once would otherwise be
 * started for ever. What it was told about the session is told again by `revive`.
 */
import type { Connection } from "./connection.mjs";
import { Failure } from "./failure.mjs";

const STARTS = 3;
const WITHIN = 60_000;

export class Host {
  readonly #open: () => Promise<Connection>;
  readonly #revive: (connection: Connection) => Promise<void>;
  readonly #now: () => number;
  #live: Connection | undefined;
  #starting: Promise<Connection> | undefined;
  #closed = false;
  #starts: number[] = [];

  /** `open` starts one; `revive` makes one that replaces a dead one know what it has to. */
  constructor(
    open: () => Promise<Connection>,
    revive: (connection: Connection) => Promise<void>,
    now: () => number = () => performance.now(),
  ) {
    this.#open = open;
    this.#revive = revive;
    this.#now = now;
  }

  /** Starts the first one; it is not counted. */
  async start(): Promise<void> {
    this.#live = await this.#open();
  }

  /** The connection, if there is one now. */
  get live(): Connection | undefined {
    return this.#live?.alive === true && this.#starting === undefined ? this.#live : undefined;
  }

  /** The connection: at once where there is one, otherwise a new one. */
  connected(): Promise<Connection> {
    const live = this.live;
    if (live !== undefined) return Promise.resolve(live);
    if (this.#closed) return Promise.reject(new Failure("unavailable", "the session has ended"));
    this.#starting ??= this.#again().finally(() => {
      this.#starting = undefined;
    });
    return this.#starting;
  }

  /** Ends it for good. */
  async close(reason: string): Promise<void> {
    this.#closed = true;
    const starting = this.#starting;
    const live = starting === undefined ? this.#live : await starting.catch(() => undefined);
    await live?.close(reason);
  }

  async #again(): Promise<Connection> {
    const now = this.#now();
    this.#starts = this.#starts.filter((at) => now - at < WITHIN);
    if (this.#starts.length >= STARTS) {
      throw new Failure(
        "unavailable",
        `pi-vers died and was started ${STARTS} times within a minute: wait a minute, or say /reload`,
      );
    }
    this.#starts.push(now);
    const connection = await this.#open();
    this.#live = connection;
    await this.#revive(connection);
    return connection;
  }
}

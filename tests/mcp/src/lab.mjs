// Where the peers are run: a home of its own for each server, guests with grants for exactly their bytes, and an end for
// everything that was started.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const named = name => process.env[name] ?? assert.fail(`${name} is not set: tests/mcp/run.sh sets it`);

export const BINARY = named('PI_VERS_BIN');
const GUESTS = named('PI_VERS_TEST_GUESTS');
// Compiled code is kept by digest: all homes share it.
const CACHE = named('PI_VERS_TEST_CACHE');

/** Nothing that is waited for takes so long, on a busy machine either. */
export const DEADLINE = 60_000;

/** The component of a fixture. */
export const guest = name => join(GUESTS, `${name}.wasm`);

/** What each fixture may do, beyond what every extension may. */
const GRANTS = {
  conformance: 'ui = ["select", "confirm", "input", "edit"]\nclient = ["form", "sampling", "roots"]',
  showcase: 'ui = ["select", "confirm", "input", "edit"]',
  unruly: 'ui = ["confirm"]',
};

/** A home that nobody else knows, and settings that lead nowhere. `end` removes it. */
export class Home {
  constructor(...guests) {
    this.path = mkdtempSync(join(tmpdir(), 'pi-vers-mcp-'));
    this.work = join(this.path, 'work');
    mkdirSync(this.work);
    const sections = guests.map(name => {
      const digest = createHash('sha256').update(readFileSync(guest(name))).digest('hex');
      return `[extension.${name}]\ndigest = "sha256:${digest}"\n${GRANTS[name]}\n`;
    });
    const policy = join(this.path, 'policy.toml');
    writeFileSync(policy, sections.join('\n'));
    this.arguments = ['mcp', '--policy', policy, ...guests.flatMap(name => ['-e', guest(name)])];
    this.env = {
      HOME: this.path,
      PATH: process.env.PATH,
      XDG_CACHE_HOME: CACHE,
      // Port 9 of a loopback address: nothing of ours, and no way out.
      VERS_BASE_URL: 'http://127.0.0.1:9',
      VERS_API_KEY: 'key-for-tests',
    };
  }

  /** How to start a server on standard input and output, as the SDKs take it. */
  stdio() {
    return { command: BINARY, args: this.arguments, env: this.env, cwd: this.work, stderr: 'ignore' };
  }

  end() {
    rmSync(this.path, { recursive: true, force: true, maxRetries: 3 });
  }
}

const started = new Set();
// Whatever way this process ends.
process.on('exit', () => started.forEach(child => child.kill('SIGKILL')));

/** A server of Streamable HTTP. */
export class HttpServer {
  /** Starts one; it is there when this is done. */
  static async start(home, ...more) {
    const server = new HttpServer();
    const child = spawn(BINARY, [...home.arguments, '--http', '127.0.0.1:0', ...more], {
      cwd: home.work,
      env: home.env,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    started.add(child);
    server.child = child;
    server.ended = new Promise(done => child.once('exit', (code, signal) => {
      started.delete(child);
      done({ code, signal });
    }));
    server.said = [];
    const lines = createInterface({ input: child.stderr });
    server.url = await within(DEADLINE, 'the server listens', new Promise((done, failed) => {
      lines.on('line', line => {
        server.said.push(line);
        const [, url] = /^listening on (http:\/\/127\.0\.0\.1:\d+\/mcp)$/.exec(line) ?? [];
        if (url) done(url);
      });
      server.ended.then(({ code, signal }) =>
        failed(new Error(`the server ended (${code ?? signal}):\n${server.said.join('\n')}`)));
    }));
    return server;
  }

  /** Ends it as an init system does, and says how it ended. */
  async end() {
    this.child.kill('SIGTERM');
    try {
      return await within(5_000, 'the server ends', this.ended);
    } finally {
      this.child.kill('SIGKILL');
    }
  }
}

/** Fails if something does not happen in time. */
export async function within(milliseconds, what, promise) {
  let timer;
  const late = new Promise((_, failed) => {
    timer = setTimeout(() => failed(new Error(`not within ${milliseconds} ms: ${what}`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** What came in so far, and a way to wait for more. */
export class Inbox {
  #all = [];
  #waiting = new Set();

  push(one) {
    this.#all.push(one);
    for (const look of this.#waiting) look();
  }

  get all() {
    return [...this.#all];
  }

  /** The first one that fits, now or later. */
  find(what, fits = () => true) {
    let look;
    const found = new Promise(done => {
      look = () => {
        const one = this.#all.find(fits);
        if (one !== undefined) done(one);
      };
      this.#waiting.add(look);
      look();
    });
    return within(DEADLINE, what, found).finally(() => this.#waiting.delete(look));
  }
}

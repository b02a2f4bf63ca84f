/** A model API on loopback: OpenAI's chat completions, streamed, that says what a test tells it to. */
import { type IncomingMessage, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** What the model answers once. */
export interface Step {
  text?: string;
  tools?: { name: string; args: Record<string, unknown> }[];
}

export interface ModelRequest {
  messages: { role: string; content: unknown; tool_call_id?: string }[];
  tools?: { function: { name: string; description: string } }[];
}

export class Model {
  readonly requests: ModelRequest[] = [];
  readonly #server = createServer((request, response) => this.#answer(request, response));
  #steps: Step[] = [];
  #calls = 0;

  static async start(): Promise<Model> {
    const model = new Model();
    await new Promise<void>((listening) => model.#server.listen(0, "127.0.0.1", listening));
    return model;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1`;
  }

  /** What is answered next; what was left is forgotten. */
  play(...steps: Step[]): void {
    this.#steps = steps;
  }

  /** The newest request. */
  get last(): ModelRequest {
    const last = this.requests.at(-1);
    if (last === undefined) throw new Error("the model was not asked");
    return last;
  }

  stop(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((stopped) => this.#server.close(() => stopped()));
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      if (request.method !== "POST") {
        response.writeHead(200, { "content-type": "application/json" });
        response.end(JSON.stringify({ object: "list", data: [{ id: "stub-1", object: "model" }] }));
        return;
      }
      const body = JSON.parse(Buffer.concat(chunks).toString()) as ModelRequest;
      this.requests.push(body);
      this.#stream(response, this.#steps.shift() ?? { text: "The script of the model is over." });
    });
  }

  #stream(response: ServerResponse, step: Step): void {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
    const chunk = (fields: object) => {
      const whole = { id: "stub", object: "chat.completion.chunk", created: 1, model: "stub-1", ...fields };
      response.write(`data: ${JSON.stringify(whole)}\n\n`);
    };
    const delta = (delta: object, finish: string | null = null) =>
      chunk({ choices: [{ index: 0, delta, finish_reason: finish }] });
    delta({ role: "assistant", content: "" });
    if (step.text !== undefined) delta({ content: step.text });
    for (const [index, { name, args }] of (step.tools ?? []).entries()) {
      const id = `call_${++this.#calls}`;
      delta({ tool_calls: [{ index, id, type: "function", function: { name, arguments: "" } }] });
      delta({ tool_calls: [{ index, function: { arguments: JSON.stringify(args) } }] });
    }
    delta({}, step.tools === undefined ? "stop" : "tool_calls");
    chunk({ choices: [], usage: { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 } });
    response.end("data: [DONE]\n\n");
  }
}

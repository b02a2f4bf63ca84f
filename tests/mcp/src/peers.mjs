// The official clients behind one face, so that one scenario is run by all of them.

import { Client as ClientV2, StreamableHTTPClientTransport as HttpV2 } from '@modelcontextprotocol/client';
import { StdioClientTransport as StdioV2 } from '@modelcontextprotocol/client/stdio';
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport as StdioV1 } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport as HttpV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  ElicitRequestSchema,
  LoggingMessageNotificationSchema,
  PromptListChangedNotificationSchema,
  ResourceListChangedNotificationSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';
import { Inbox } from './lab.mjs';

const info = { name: 'peer', version: '0' };
const capabilities = { elicitation: { form: {} } };

class Peer {
  asked = new Inbox();
  logged = new Inbox();
  /** Methods of notifications that a list or a resource changed, with their parameters. */
  changed = new Inbox();
  /** Answers a form; set by a test. */
  answer = () => ({ action: 'decline' });

  elicited(params) {
    this.asked.push(params);
    return this.answer(params);
  }

  close() {
    return this.client.close();
  }

  listTools() {
    return this.client.listTools();
  }

  listPrompts() {
    return this.client.listPrompts();
  }

  listResources() {
    return this.client.listResources();
  }

  readResource(uri) {
    return this.client.readResource({ uri });
  }

  getPrompt(name, arguments_) {
    return this.client.getPrompt({ name, arguments: arguments_ });
  }

  complete(name, value) {
    const ref = { type: 'ref/prompt', name };
    return this.client.complete({ ref, argument: { name: 'arguments', value } });
  }
}

class LegacyPeer extends Peer {
  era = 'legacy';

  async connect(transport) {
    this.client = new ClientV1(info, { capabilities });
    this.client.setRequestHandler(ElicitRequestSchema, request => this.elicited(request.params));
    this.client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => this.logged.push(params));
    for (const schema of [
      ToolListChangedNotificationSchema,
      PromptListChangedNotificationSchema,
      ResourceListChangedNotificationSchema,
      ResourceUpdatedNotificationSchema,
    ]) {
      this.client.setNotificationHandler(schema, one => this.changed.push(one));
    }
    await this.client.connect(transport);
    await this.client.setLoggingLevel('info');
    return this;
  }

  call(name, arguments_ = {}, options = {}) {
    return this.client.callTool({ name, arguments: arguments_ }, undefined, options);
  }

  /** Changes of lists come by themselves in this era. */
  async listen({ resources = [] }) {
    for (const uri of resources) await this.client.subscribeResource({ uri });
    return { close: async () => { for (const uri of resources) await this.client.unsubscribeResource({ uri }); } };
  }
}

class ModernPeer extends Peer {
  era = 'modern';

  async connect(transport) {
    this.client = new ClientV2(info, { capabilities, versionNegotiation: { mode: 'auto' } });
    this.client.setRequestHandler('elicitation/create', request => this.elicited(request.params));
    this.client.setNotificationHandler('notifications/message', ({ params }) => this.logged.push(params));
    for (const method of [
      'notifications/tools/list_changed',
      'notifications/prompts/list_changed',
      'notifications/resources/list_changed',
      'notifications/resources/updated',
    ]) {
      this.client.setNotificationHandler(method, one => this.changed.push(one));
    }
    await this.client.connect(transport);
    return this;
  }

  call(name, arguments_ = {}, options = {}) {
    // Log messages are for the requests that ask for them.
    const _meta = { 'io.modelcontextprotocol/logLevel': 'info' };
    return this.client.callTool({ name, arguments: arguments_, _meta }, options);
  }

  listen({ resources = [] }) {
    return this.client.listen({
      toolsListChanged: true,
      promptsListChanged: true,
      resourcesListChanged: true,
      resourceSubscriptions: resources,
    });
  }
}

/** The SDKs by name; each opens a connection by standard input and output, or by HTTP. */
export const PEERS = {
  'TypeScript SDK v1': {
    version: '2025-11-25',
    stdio: home => new LegacyPeer().connect(new StdioV1(home.stdio())),
    http: url => new LegacyPeer().connect(new HttpV1(new URL(url))),
  },
  'TypeScript SDK v2': {
    version: '2026-07-28',
    stdio: home => new ModernPeer().connect(new StdioV2(home.stdio())),
    http: url => new ModernPeer().connect(new HttpV2(new URL(url))),
  },
};

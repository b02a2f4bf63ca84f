#!/usr/bin/env node
// `vers-mcp-setup` is `pi-vers mcp setup`.
import { launch } from "../dist/launch.mjs";
launch("mcp", "setup");

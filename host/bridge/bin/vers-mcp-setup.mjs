#!/usr/bin/env node
// `vers-mcp-setup` is `pi-vers mcp setup`. As long as the binary has no such command, it says so itself.
import { launch } from "../dist/launch.mjs";
launch("mcp", "setup");

#!/usr/bin/env node
// `vers-mcp` is `pi-vers mcp`. As long as the binary has no such command, it says so itself.
import { launch } from "../dist/launch.mjs";
launch("mcp");

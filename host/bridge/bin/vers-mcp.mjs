#!/usr/bin/env node
// `vers-mcp` is `pi-vers mcp`.
import { launch } from "../dist/launch.mjs";
launch("mcp");

// Makes a component of a core module: what `wasm-tools component new` does, by the same code. Usage: component.mjs MODULE COMPONENT
import { readFileSync, writeFileSync } from "node:fs";
import { componentNew } from "@bytecodealliance/jco-transpile/wasm-tools";

const [module, component] = process.argv.slice(2);
writeFileSync(component, await componentNew(new Uint8Array(readFileSync(module)), []));

import { PI_073 } from "./lab.mjs";
import { scenario } from "./scenario.mjs";

scenario(PI_073);

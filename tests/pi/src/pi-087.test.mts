import { PI_087 } from "./lab.mjs";
import { scenario } from "./scenario.mjs";

scenario(PI_087);

// The commands of docs/run/deployment.md, and of other pages about machines.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../browser/harness.mjs';

/** The blocks of commands of a kind, in order; of another page where one is named. */
export const blocks = (kind, page = 'docs/run/deployment.md') => [...readFileSync(join(ROOT, page), 'utf8').matchAll(/^```bash (.*)\n([\s\S]*?)^```$/gm)].filter(([, found]) => found === kind).map(([, , commands]) => commands);

// The commands of docs/run/deployment.md.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../browser/harness.mjs';

const PAGE = readFileSync(join(ROOT, 'docs/run/deployment.md'), 'utf8');

/** The blocks of commands of a kind, in order. */
export const blocks = (kind) => [...PAGE.matchAll(/^```bash (.*)\n([\s\S]*?)^```$/gm)].filter(([, found]) => found === kind).map(([, , commands]) => commands);

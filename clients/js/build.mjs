// Builds dist/: the module, its source map and its types. With --check, fails if dist/ differs from a build of src/.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

/** In bytes, gzipped. */
const MAX_SIZE = 8 * 1024;

process.chdir(import.meta.dirname ?? new URL('.', import.meta.url).pathname);
const isCheck = process.argv.includes('--check');
const dist = isCheck ? mkdtempSync(join(tmpdir(), 'signaling-client-')) : 'dist';
if (!isCheck) rmSync(dist, { recursive: true, force: true });

/** The members that TypeScript keeps private get short names. Not those whose name is also a field of a frame, an option or a browser's. */
const source = readdirSync('src').map((name) => readFileSync(join('src', name), 'utf8')).join('\n');
const declared = new Set([...source.matchAll(/\b(?:private|protected) (?:(?:readonly|async) )*(\w+)/g)].map(([, name]) => name));
const isShared = (name) => new RegExp(`(?<!\\bthis)\\.${name}\\b|[{,]\\s*${name}\\b|(?<!(?:private|protected|readonly) )\\b${name}\\??:`).test(source);
const mangleProps = new RegExp(`^(${[...declared].filter((name) => name !== 'readonly' && !isShared(name)).join('|')})$`);

await build({
  entryPoints: ['src/index.ts'], outfile: join(dist, 'signaling.js'),
  bundle: true, minify: true, sourcemap: true, sourcesContent: true, sourceRoot: 'signaling-client',
  format: 'esm', target: 'es2022', mangleProps,
});
execFileSync('node_modules/.bin/tsc', ['--outDir', dist], { stdio: 'inherit' });

const module = readFileSync(join(dist, 'signaling.js'));
const size = gzipSync(module, { level: 9 }).length;
console.log(`signaling.js: ${module.length} bytes, ${size} gzipped (at most ${MAX_SIZE})`);
if (size > MAX_SIZE) process.exit(1);
if (isCheck) {
  // The map names its sources relative to the build folder; the rest does not depend on where it was built.
  const differ = readdirSync(dist).filter((name) => !name.endsWith('.map')
    && readFileSync(join(dist, name), 'utf8') !== readFileSync(join('dist', name), 'utf8'));
  rmSync(dist, { recursive: true });
  if (differ.length) {
    console.error(`dist/ differs from a build of src/: ${differ.join(', ')}; run npm run build`);
    process.exit(1);
  }
}

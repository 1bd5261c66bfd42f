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

await build({
  entryPoints: ['src/index.ts'], outfile: join(dist, 'signaling.js'),
  bundle: true, minify: true, sourcemap: true, sourcesContent: true, sourceRoot: 'signaling-client',
  format: 'esm', target: 'es2022',
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

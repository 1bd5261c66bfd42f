// Runs in the runtime that is to be tested: `member.mjs URL ROOM TOKEN [MODULE]` enters a room twice, and prints what the
// first of the two notices, one JSON value a line. MODULE exports the `WebSocket` class to use in place of the global one.

import { connect } from '../../dist/signaling.js';

const [url, room, token, module] = (globalThis.Deno?.args ?? process.argv.slice(2));
const WebSocket = module ? (await import(module)).WebSocket : undefined;
const tell = (what) => console.log(JSON.stringify(what));
const enter = (clientId, onState) => connect({ url, room, token, clientId, WebSocket, onState });

const first = await enter('first', ({ state, code }) => tell([state, code ?? null]));
const second = await enter('second');
first.on('error', ({ error }) => tell(['error', error.code]));
first.on('message', ({ data }) => tell(['message', data]));
let count = 0;
setInterval(() => { if (second.state === 'connected') second.send((count += 1)); }, 200);
try {
  second.send('x'.repeat(70_000));
} catch (error) {
  tell(['refused', error.code]);
}

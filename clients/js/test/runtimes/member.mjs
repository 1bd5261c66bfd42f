// Runs in the runtime that is to be tested: `member.mjs URL ROOM TOKEN [MODULE]` prints what a member notices, one JSON value a
// line. MODULE exports the `WebSocket` class to use in place of the global one.

import { connect } from '../../dist/signaling.js';
import { takePart } from './take_part.mjs';

const [url, room, token, module] = (globalThis.Deno?.args ?? process.argv.slice(2));
const WebSocket = module ? (await import(module)).WebSocket : undefined;
await takePart(connect, { url, room, token, WebSocket }, (what) => console.log(JSON.stringify(what)));

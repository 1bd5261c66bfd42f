// Takes one client through a room, and says what it does and shows.

import net from 'node:net';
import { ask, Client, eventually, folder, freePort, launch, logIn, startServer } from '../browser/harness.mjs';
import { CLIENTS, prepare } from './clients.mjs';

const ADMIN_TOKEN = 'a'.repeat(16) + 'b'.repeat(16);
const OFFER_LENGTH = 50_000;
/** The server pings three times within its time-out, so that this is more than twice the time-out. */
const IDLE_PINGS = 7;
const EMPTY_PAGE = '<!doctype html><title>empty</title><link rel="icon" href="data:,">';

/** A way to the server that notes the head of each handshake by its path, and has an empty page of its own at `/`. */
async function startTap() {
  const tap = { heads: new Map() };
  const server = net.createServer((near) => {
    let head = '';
    const read = (bytes) => {
      head += bytes.toString('latin1');
      if (!head.includes('\r\n\r\n')) return undefined;
      near.off('data', read).pause();
      const path = head.split(' ')[1];
      if (path === '/') {
        return near.end(`HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: ${EMPTY_PAGE.length}\r\nConnection: close\r\n\r\n${EMPTY_PAGE}`);
      }
      tap.heads.set(path, head);
      const far = net.connect(tap.to, '127.0.0.1', () => { far.write(head, 'latin1'); near.pipe(far); far.pipe(near); });
      far.on('error', () => near.destroy()).on('close', () => near.destroy());
      return near.on('close', () => far.destroy());
    };
    near.on('error', () => {}).on('data', read);
  });
  tap.port = await freePort();
  await new Promise((done) => server.listen(tap.port, '127.0.0.1', done));
  server.unref();
  return tap;
}

/** The servers of all clients: one that takes pages of two origins only, and one that refuses every handshake. */
export async function startRooms() {
  const tap = await startTap();
  const server = await startServer({
    ADMIN_TOKEN, WEBSOCKET_TIMEOUT: '6', CORS_ORIGINS: JSON.stringify(['https://app.example', `http://localhost:${tap.port}`]),
  });
  tap.to = server.port;
  const strict = await startServer({ REQUIRE_HTTPS: 'true', TRUSTED_PROXIES: '[]' });
  return { server, strict, tap, token: await logIn(server.url, 'alice'), peerToken: await logIn(server.url, 'bob') };
}

/** The end of an output, without the offer. */
const shortened = (output) => output.replaceAll(/x{99,}/g, 'x…').slice(-2_000);

/** What a handshake had of a header. */
function headerOf(head, name) {
  const line = head.split('\r\n').find((it) => it.toLowerCase().startsWith(`${name}:`));
  return line?.slice(name.length + 1).trim();
}

/** Why the server has refused a handshake for a room. */
function reasonInLog({ child }, room) {
  const line = child.output.split('\n').find((it) => it.includes('"handshake refused"') && it.includes(`/ws/${room}"`));
  return line && JSON.parse(line).fields.reason;
}

/** What a client does in each case: `yes`, or what it shows. Throws where it does not do what its row says. */
export async function tryClient(name, { server, strict, tap, token, peerToken }) {
  const client = CLIENTS[name];
  const { host = '127.0.0.1', isRefused = false } = client;
  const home = folder();
  const { command, args, env } = await prepare(client, home);
  const launched = (url) => launch(command, args, {
    cwd: home, env: { ...process.env, NO_PROXY: '*', ...env, ROOM_URL: url, TOKEN: token, PAGE_URL: `http://localhost:${tap.port}/` },
  });
  const row = { language: client.language, version: client.version(), sets: client.sets ?? '–' };

  const room = `field-${encodeURIComponent(name).replaceAll('%', '')}`;
  const child = launched(`ws://${host}:${tap.port}/ws/${room}`);
  const said = () => `it said ${shortened(child.output)}`;
  const shows = (what) => eventually(() => `${name} shows ${what}; ${said()}`, () => {
    if (child.output.includes(what)) return true;
    if (child.gone) throw new Error(`${name} has ended before it shows ${what}; ${said()}`);
    return false;
  });
  await eventually(() => `${name} sends a handshake; ${said()}`, () => tap.heads.has(`/ws/${room}`) || child.gone);
  const head = tap.heads.get(`/ws/${room}`) ?? '';
  row.origin = headerOf(head, 'origin')?.replace(String(tap.port), 'port') ?? '–';
  row.deflate = headerOf(head, 'sec-websocket-extensions')?.includes('permessage-deflate') ? 'offered' : '–';
  if (isRefused) {
    await eventually(() => `the log says why ${name} is refused; ${said()}`, () => child.gone && reasonInLog(server, room));
    return { ...row, flow: `no: \`handshake refused\`, \`${reasonInLog(server, room)}\``, offer: '–', idle: '–', kick: '–', refusal: 'shows no status' };
  }
  await shows('auth_success');
  await shows('users_in_room');
  const peer = await Client.join(server.url, room, peerToken, 'peer');
  await shows('user_joined');
  row.flow = 'yes';
  const { client_id: id } = peer.others[0];

  peer.send({ type: 'offer', offer: { type: 'offer', sdp: 'x'.repeat(OFFER_LENGTH) }, to: id });
  await peer.receive('answer');
  row.offer = 'yes';

  const pings = peer.pings + IDLE_PINGS;
  await eventually(() => `the server has pinged its members; ${name}: ${said()}`, () => peer.pings >= pings);
  const left = peer.received.find(({ type }) => type === 'user_left');
  if (left || child.gone) throw new Error(`${name} did not stay; ${said()}`);
  row.idle = 'yes';

  await ask('POST', server.url, `/admin/api/rooms/${room}/kick`, { token: ADMIN_TOKEN, json: { client_id: id } });
  await peer.receive('user_left');
  await eventually(() => `${name} ends; ${said()}`, () => child.isRead);
  if (!child.output.includes('has removed you from this room')) throw new Error(`${name} does not show the error of the kick; ${said()}`);
  row.kick = /^closed(.*)$/m.exec(child.output)?.[1].trim() || 'no code, no reason';
  await peer.close();

  const refused = launched(`${strict.url.replace('http', 'ws').replace('127.0.0.1', host)}/ws/${room}`);
  await eventually(() => `${name} gives up on a refused connection; it said ${shortened(refused.output)}`, () => refused.isRead);
  row.refusal = refused.output.includes('403') ? 'shows 403' : 'shows no status';
  if (!strict.child.output.includes('"handshake refused"')) throw new Error(`the log does not say why ${name} was refused`);
  return row;
}

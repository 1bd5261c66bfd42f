// A session on scripted sockets and on a clock that the tests advance.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import { connect, SignalError } from '../dist/signaling.js';

const real = { setTimeout: globalThis.setTimeout, clearTimeout: globalThis.clearTimeout, random: Math.random };

/** Timers run when `clock.advance` reaches them. */
const clock = {
  now: 0, timers: new Map(), last: 0,
  async advance(ms) {
    const end = this.now + ms;
    for (;;) {
      await settle();
      const due = [...this.timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      this.now = due[1].at;
      this.timers.delete(due[0]);
      due[1].run();
    }
    this.now = end;
    await settle();
  },
};
const settle = () => new Promise((resolve) => real.setTimeout(resolve, 0));

class FakeSocket {
  static all = [];
  readyState = 1;
  sent = [];
  constructor(url) {
    this.url = url;
    FakeSocket.all.push(this);
  }
  send(text) { this.sent.push(JSON.parse(text)); }
  close(code) { this.closedWith = code ?? 1005; this.readyState = 3; }
  async receive(...frames) {
    for (const frame of frames) this.onmessage({ data: JSON.stringify(frame) });
    await settle();
  }
  async drop(code = 1006, reason = '') {
    this.readyState = 3;
    this.onclose({ code, reason });
    await settle();
  }
  static get last() { return FakeSocket.all.at(-1); }
}

/** The parts of an RTCPeerConnection that a session uses without a real call. */
class FakeConnection {
  static all = [];
  connectionState = 'new';
  signalingState = 'stable';
  constructor(configuration) { this.configuration = configuration; FakeConnection.all.push(this); }
  setConfiguration(configuration) { this.configuration = configuration; }
  getSenders() { return []; }
  async getStats() { return new Map(); }
  async setRemoteDescription(description) { this.remoteDescription = description; }
  async setLocalDescription() { this.localDescription = { type: 'answer', sdp: 'v=0' }; }
  restartIce() { this.restarts = (this.restarts ?? 0) + 1; }
  close() { this.isClosed = true; }
}

/** A token that is valid for so many seconds from its issue on, at a time that no clock here shows. */
const jwt = (seconds) => `x.${Buffer.from(JSON.stringify({ iat: 1_000, exp: 1_000 + seconds })).toString('base64url')}.x`;
const BOB = { client_id: 'bob-1', username: 'bob', polite: true };
const success = (more = {}) => ({ type: 'auth_success', user: 'alice', client_id: 'alice-1', resume_token: 'R1', resume_window_seconds: 30, ...more });

beforeEach(() => {
  Object.assign(clock, { now: 0, last: 0 });
  clock.timers.clear();
  FakeSocket.all = [];
  FakeConnection.all = [];
  globalThis.setTimeout = (run, ms = 0) => (clock.timers.set(++clock.last, { at: clock.now + ms, run }), clock.last);
  globalThis.clearTimeout = (timer) => clock.timers.delete(timer);
  Math.random = () => 0.5;
});
afterEach(() => {
  Object.assign(globalThis, { setTimeout: real.setTimeout, clearTimeout: real.clearTimeout });
  Math.random = real.random;
});

function start(options = {}) {
  const errors = [];
  const connecting = connect({
    url: 'https://example.com/calls/', room: 'Zimmer 7/é', token: 'T', WebSocket: FakeSocket, RTCPeerConnection: FakeConnection, ...options,
  });
  connecting.catch((error) => errors.push(error));
  return { connecting, errors };
}

/** A connected session with Bob in the room, and what it reports from now on. */
async function join(options) {
  const { connecting } = start(options);
  await settle();
  await FakeSocket.last.receive({ type: 'auth_required' });
  await FakeSocket.last.receive(success(), { seq: 1, type: 'users_in_room', users: [BOB] });
  const session = await connecting;
  const seen = { states: [], errors: [], messages: [], left: [] };
  session.on('state', (event) => seen.states.push(event));
  session.on('error', ({ error }) => seen.errors.push(error));
  session.on('message', ({ data }) => seen.messages.push(data));
  session.on('peer-left', ({ peer }) => seen.left.push(peer.id));
  return { session, seen };
}

test('authenticates with its features, and is connected after users_in_room', async () => {
  const { session } = await join({ clientId: 'alice-1' });

  assert.equal(FakeSocket.last.url, 'wss://example.com/calls/ws/Zimmer%207%2F%C3%A9');
  assert.deepEqual(FakeSocket.last.sent, [{ type: 'auth_token', token: 'T', clientId: 'alice-1', features: ['resume', 'peer_state', 'ice', 'limits'] }]);
  assert.deepEqual([session.id, session.username, session.state, [...session.peers.keys()]], ['alice-1', 'alice', 'connected', ['bob-1']]);
  assert.equal(session.peers.get('bob-1').polite, true);
});

test('resumes, and repeats the frames that may have been lost', async () => {
  const { session, seen } = await join();
  session.send('arrived');
  await clock.advance(15_000);
  assert.deepEqual(FakeSocket.last.sent.at(-1), { type: 'ping' });
  await FakeSocket.last.receive({ seq: 2, type: 'pong' });
  session.send('perhaps', { to: 'bob-1' });
  assert.deepEqual(FakeSocket.last.sent.at(-1), { type: 'message', data: 'perhaps', to: 'bob-1', id: 2, ack: 2 });

  await FakeSocket.last.drop();
  session.send('while disconnected');
  assert.deepEqual(seen.states.at(-1), { state: 'reconnecting', retryIn: 150, code: 1006, reason: '' });
  await clock.advance(150);
  await FakeSocket.last.receive({ type: 'auth_required' });
  assert.deepEqual(FakeSocket.last.sent, [{ type: 'resume', resume_token: 'R1', last_seq: 2 }]);
  await FakeSocket.last.receive({ type: 'resumed', client_id: 'alice-1', replayed: 1, users: [BOB], resume_token: 'R2' },
    { seq: 3, type: 'message', data: 'missed', from: 'bob-1' });

  assert.deepEqual(FakeSocket.last.sent.slice(1).map(({ data, id }) => [data, id]), [['perhaps', 2], ['while disconnected', 3]]);
  assert.deepEqual([seen.messages, seen.left, session.state], [['missed'], [], 'connected']);
  await FakeSocket.last.drop();
  await clock.advance(300);
  await FakeSocket.last.receive({ type: 'auth_required' });
  assert.deepEqual(FakeSocket.last.sent, [{ type: 'resume', resume_token: 'R2', last_seq: 3 }]);
});

test('repeats no frame that was refused', async () => {
  const { session, seen } = await join();
  for (const text of ['first', 'refused', 'third']) session.send(text);
  await clock.advance(15_000);
  session.send('after the ping');
  await FakeSocket.last.receive({ seq: 2, type: 'error', code: 'target_not_found', message: 'x', id: 2 });
  const resume = async () => {
    await FakeSocket.last.drop();
    await clock.advance(300);
    await FakeSocket.last.receive({ type: 'auth_required' });
    await FakeSocket.last.receive({ type: 'resumed', replayed: 0, users: [BOB] });
    return FakeSocket.last.sent.slice(1).map(({ data }) => data);
  };

  assert.deepEqual([await resume(), seen.errors.map(({ code }) => code)], [['first', 'third', 'after the ping'], ['target_not_found']]);
  await clock.advance(15_000);
  session.send('last');
  await FakeSocket.last.receive({ seq: 3, type: 'pong' });
  assert.deepEqual(await resume(), ['last']);
});

test('ignores a replayed pong of the previous socket', async () => {
  const { session } = await join();
  session.send('perhaps');
  await FakeSocket.last.drop();
  await clock.advance(150);
  await FakeSocket.last.receive({ type: 'auth_required' });
  const missed = Array.from({ length: 40 }, (_, number) => ({ seq: number + 2, type: 'message', data: number, from: 'bob-1' }));
  await FakeSocket.last.receive({ type: 'resumed', replayed: 41, users: [BOB] }, ...missed, { seq: 42, type: 'pong' });
  await FakeSocket.last.drop();
  await clock.advance(300);
  await FakeSocket.last.receive({ type: 'auth_required' });
  await FakeSocket.last.receive({ type: 'resumed', replayed: 0, users: [BOB] });

  assert.deepEqual(FakeSocket.last.sent.slice(1).map(({ data }) => data), ['perhaps']);
});

test('sends a token that was refreshed while disconnected, and takes the role of the later frame', async () => {
  const tokens = [jwt(20), jwt(3600)];
  const second = tokens[1];
  const { session } = await join({ getToken: () => tokens.shift() });
  await clock.advance(9_000);
  await FakeSocket.last.drop();
  await clock.advance(150);
  await clock.advance(2_000);
  await FakeSocket.last.receive({ type: 'auth_required' });
  await FakeSocket.last.receive({ type: 'resumed', replayed: 0, users: [BOB] });
  assert.deepEqual([FakeSocket.last.sent[1].type, FakeSocket.last.sent[1].token], ['auth_token', second]);

  await FakeSocket.last.receive({ seq: 2, type: 'user_joined', ...BOB, polite: false });
  assert.equal(session.peers.get('bob-1').polite, false);
});

test('joins again when a resume fails, and keeps its peer connections', async () => {
  const { session, seen } = await join();
  session.peers.get('bob-1').connection.connectionState = 'connected';
  session.send('before the new join');
  await FakeSocket.last.drop();
  await clock.advance(150);
  await FakeSocket.last.receive({ type: 'auth_required' });
  await FakeSocket.last.receive({ type: 'error', code: 'resume_failed', message: 'too late' });
  assert.equal(FakeSocket.last.sent.at(-1).clientId, 'alice-1');
  await FakeSocket.last.receive(success(), { seq: 1, type: 'users_in_room', users: [] });

  assert.deepEqual([seen.left, seen.errors, FakeConnection.all.length], [[], [], 1]);
  await FakeSocket.last.receive({ seq: 2, type: 'user_joined', ...BOB });
  await clock.advance(60_000 - 20_000);
  assert.deepEqual([seen.left, FakeConnection.all.length], [[], 1], 'Bob joined later and kept his connection');
});

test('gives peers the display names of their tokens', async () => {
  const { session } = await join();
  const carol = { client_id: 'carol-1', username: 'carol', polite: false, name: 'Carol C.' };
  await FakeSocket.last.receive({ seq: 2, type: 'user_joined', ...carol });

  assert.deepEqual([...session.peers.values()].map(({ name }) => name), [undefined, 'Carol C.']);
  await FakeSocket.last.receive({ seq: 3, type: 'user_joined', ...carol, name: 'C.' });
  assert.equal(session.peers.get('carol-1').name, 'C.');
});

test('removes a peer that does not return after a server crash', async () => {
  const { session, seen } = await join();
  session.peers.get('bob-1').connection.connectionState = 'connected';
  await FakeSocket.last.drop();
  await clock.advance(150);
  await FakeSocket.last.receive({ type: 'auth_required' });
  await FakeSocket.last.receive({ type: 'error', code: 'resume_failed', message: 'gone' });
  await FakeSocket.last.receive(success(), { seq: 1, type: 'users_in_room', users: [] });
  for (let beat = 0; beat < 2; beat += 1) {
    await clock.advance(15_000);
    await FakeSocket.last.receive({ seq: 2 + beat, type: 'pong' });
  }

  assert.deepEqual([seen.left, FakeConnection.all[0].isClosed], [['bob-1'], true]);
});

const CLOSES = JSON.parse(readFileSync(new URL('../../closes.json', import.meta.url), 'utf8'));

test('does after every close what clients/closes.json lists', async () => {
  for (const { code, reason, error, then } of CLOSES) {
    const renewals = [];
    const { session, seen } = await join({ getToken: (renew) => { renewals.push(renew); return 'T'; } });
    const sockets = FakeSocket.all.length;
    if (error) await FakeSocket.last.receive({ type: 'error', message: 'x', ...error });
    await FakeSocket.last.drop(code, reason);
    const row = `${code} ${reason}`;

    assert.deepEqual(seen.states.map(({ state }) => state), [then === 'stop' ? 'closed' : 'reconnecting'], row);
    if (then === 'stop') {
      assert.equal(seen.errors[0].fatal, true, row);
      assert.deepEqual([seen.left, session.peers.size, clock.timers.size], [['bob-1'], 0, 0], row);
    } else {
      await clock.advance(300);
      assert.equal(FakeSocket.all.length, sockets + 1, row);
      await FakeSocket.last.receive({ type: 'auth_required' });
      const expected = then === 'renew' ? ['auth_token', [false, true]] : ['resume', [false]];
      assert.deepEqual([FakeSocket.last.sent[0].type, renewals], expected, row);
      session.close();
    }
  }
});

const EVENTS = JSON.parse(readFileSync(new URL('../../events.json', import.meta.url), 'utf8'));

test('reports of every frame what clients/events.json lists, but for signals, which it handles itself', async () => {
  const seen = [];
  const { connecting } = start({ onState: ({ state }) => seen.push({ event: 'state', state }) });
  let seq = 0;
  const enter = async (users) => {
    await FakeSocket.last.receive({ type: 'auth_required' });
    if (seq) await FakeSocket.last.receive({ type: 'error', code: 'resume_failed', message: 'x' });
    await FakeSocket.last.receive(success(), { seq: (seq = 1), type: 'users_in_room', users });
    await clock.advance(0);
  };
  connecting.then((session) => {
    const normal = {
      'peer-joined': ({ peer, existing }) => ({ id: peer.id, existing }), 'peer-left': ({ peer }) => ({ id: peer.id }),
      peer: ({ peer, state }) => ({ id: peer.id, state }), message: ({ peer, data }) => ({ id: peer.id, data }),
      'server-message': ({ data }) => ({ data }), error: ({ error }) => ({ code: error.code }),
    };
    for (const [event, fields] of Object.entries(normal)) session.on(event, (one) => seen.push({ event, ...fields(one) }));
  });
  for (const { join: users, frame, close, events } of EVENTS) {
    if (seq === 0) await settle();
    seen.length = 0;
    if (frame) await FakeSocket.last.receive({ ...frame, seq: (seq += 1) });
    else if (close) await FakeSocket.last.drop(close);
    else {
      if (seq) await clock.advance(300);
      seen.length = 0;
      await enter(users);
    }
    const expected = events.filter(({ event }) => !['signal', 'ice-servers'].includes(event));
    assert.deepEqual(seen, expected, JSON.stringify(frame ?? close ?? users));
  }
});

test('ends on a fatal getToken error, and waits retryAfter after another one', async () => {
  const busy = Object.assign(new SignalError('http_429', 'Slow down'), { retryAfter: 5_000 });
  const failures = [busy, new SignalError('unauthorized', 'Wrong password', true)];
  const { connecting, errors } = start({ getToken: () => { throw failures.shift(); } });
  await settle();
  await FakeSocket.last.receive({ type: 'auth_required' });
  await clock.advance(4_999);
  assert.equal(FakeSocket.all.length, 1);
  await clock.advance(1);
  await FakeSocket.last.receive({ type: 'auth_required' });

  await assert.rejects(connecting, { code: 'unauthorized', fatal: true });
  assert.deepEqual([errors.length, FakeSocket.all.length, clock.timers.size], [1, 2, 0]);
});

test('reconnects after the delay that the server announces', async () => {
  const { seen } = await join();
  await FakeSocket.last.receive({ type: 'server_shutdown', reconnect_in_ms: 4200 },
    { type: 'error', code: 'server_restarting', message: 'x', retry: true, retry_after_ms: 4200 });
  await FakeSocket.last.drop(1012, 'Server is restarting');

  assert.equal(seen.states.at(-1).retryIn, 4200);
  await clock.advance(4199);
  assert.equal(FakeSocket.all.length, 1);
  await clock.advance(1);
  assert.equal(FakeSocket.all.length, 2);
});

test('reports states before it has joined, and stops when its signal aborts', async () => {
  const states = [];
  const controller = new AbortController();
  const { connecting, errors } = start({ onState: (event) => states.push(event), signal: controller.signal });
  await FakeSocket.last.drop(1013, 'Try again later');
  controller.abort(new Error('enough'));

  await assert.rejects(connecting, /enough/);
  assert.deepEqual(states.map(({ state, reason }) => [state, reason]), [['connecting', 'Try again later'], ['closed', '']]);
  assert.deepEqual([errors.length, clock.timers.size], [1, 0]);
});

test('doubles its retry delay up to the limit', async () => {
  const { seen } = await join();
  for (let attempt = 0; attempt < 8; attempt += 1) {
    await FakeSocket.last.drop();
    await clock.advance(seen.states.at(-1).retryIn);
  }

  assert.deepEqual(seen.states.map(({ retryIn }) => retryIn), [150, 300, 600, 1200, 2400, 4800, 7500, 7500]);
});

test('abandons a socket on which no frame arrives', async () => {
  const { seen } = await join();
  const silent = FakeSocket.last;
  await clock.advance(15_000 + 9_999);
  assert.deepEqual(seen.states, []);
  await clock.advance(1);

  // A Close frame that the server reads before the resume would mean leaving.
  assert.deepEqual([seen.states.at(-1).state, silent.readyState], ['reconnecting', 1]);
  await clock.advance(150);
  await FakeSocket.last.receive({ type: 'auth_required' });
  await FakeSocket.last.receive({ type: 'resumed', replayed: 0, users: [BOB] });
  assert.equal(silent.readyState, 3);
});

test('renews a refused token once', async () => {
  const renewals = [];
  const { errors } = start({ getToken: (renew) => { renewals.push(renew); return 'T'; } });
  for (let attempt = 0; attempt < 2; attempt += 1) {
    await clock.advance(300);
    await FakeSocket.last.receive({ type: 'auth_required' });
    await FakeSocket.last.drop(1008, 'Invalid token');
  }
  await clock.advance(60_000);

  assert.deepEqual([renewals, FakeSocket.all.length], [[false, true], 2]);
  assert.ok(errors[0] instanceof SignalError && errors[0].fatal);
});

test('sends a new token one minute before the old one expires', async () => {
  const tokens = [jwt(1800), jwt(3600)];
  await join({ getToken: async () => tokens.shift() });
  const second = tokens[0];
  for (let beat = 0; beat < 116; beat += 1) {
    await clock.advance(15_000);
    if (FakeSocket.last.sent.at(-1).type === 'ping') await FakeSocket.last.receive({ type: 'pong' });
  }

  const sent = FakeSocket.last.sent.filter(({ type }) => type === 'auth_token').map(({ token }) => token);
  assert.equal(sent[1], second);
});

test('retries a token refresh that failed', async () => {
  const tokens = [jwt(20), undefined, jwt(3600)];
  const { seen } = await join({
    getToken: () => {
      const token = tokens.shift();
      if (!token) throw new Error('down');
      return token;
    },
  });
  await clock.advance(10_000 + 14_000);
  assert.deepEqual([seen.errors.map(({ code, fatal }) => [code, fatal]), tokens.length], [[['no_token', false]], 1]);
  await FakeSocket.last.receive({ type: 'pong' });
  await clock.advance(1_000);

  assert.equal(tokens.length, 0);
});

test('renegotiates on one connection, and creates a new one when the peer has replaced its own', async () => {
  await join();
  const offers = async (more) => FakeSocket.last.receive({ type: 'offer', from: 'bob-1', offer: { type: 'offer', sdp: 'v=0', ...more } });
  for (const [offer, connections] of [[{}, 1], [{}, 1], [{ pc: 'a' }, 2], [{ pc: 'a' }, 2], [{ pc: 'b' }, 3]]) {
    await offers(offer);
    assert.equal(FakeConnection.all.length, connections, JSON.stringify(offer));
  }
  assert.equal(FakeSocket.last.sent.filter(({ type }) => type === 'answer').length, 5);
});

test('ignores an offer that is older than one that it has answered', async () => {
  await join();
  for (const n of [3, 2, 3, 4]) await FakeSocket.last.receive({ type: 'offer', from: 'bob-1', offer: { type: 'offer', sdp: 'v=0', pc: 'a', n } });
  assert.deepEqual(FakeSocket.last.sent.filter(({ type }) => type === 'answer').map(({ answer }) => answer.n), [3, 3, 4]);
  // A page that was loaded again counts from the start.
  await FakeSocket.last.receive({ type: 'offer', from: 'bob-1', offer: { type: 'offer', sdp: 'v=0', pc: 'b', n: 1 } });
  assert.equal(FakeSocket.last.sent.at(-1).answer.n, 1);
});

test('does nothing more for a peer that has left, which may be back as another one', async () => {
  const { session, seen } = await join();
  const offer = (pc, n) => ({ type: 'offer', from: 'bob-1', offer: { type: 'offer', sdp: 'v=0', pc, n } });
  await FakeSocket.last.receive(offer('a', 1));
  // Loaded again, and left and joined again, while this client was away: all of it arrives at once.
  await FakeSocket.last.receive(offer('b', 1), { type: 'user_left', client_id: 'bob-1' }, { type: 'user_joined', ...BOB });

  assert.deepEqual(FakeConnection.all.map(({ isClosed = false }) => isClosed), [true, false]);
  assert.equal(session.peers.get('bob-1').connection, FakeConnection.all[1]);
  assert.deepEqual([FakeSocket.last.sent.filter(({ type }) => type === 'answer').length, seen.errors], [1, []]);
});

test('sets new ICE servers on every connection', async () => {
  const { session } = await join();
  const iceServers = [{ urls: ['turn:turn.example.com'], username: '1:alice', credential: 'x' }];
  await FakeSocket.last.receive({ seq: 2, type: 'ice_servers', iceServers, ttl: 60 });

  const [bob] = [...session.peers.values()];
  assert.deepEqual(bob.connection.configuration.iceServers, iceServers);
  await FakeSocket.last.receive({ seq: 3, type: 'user_joined', client_id: 'carol-1', username: 'carol', polite: false });
  assert.deepEqual(session.peers.get('carol-1').connection.configuration.iceServers, iceServers);
});

test('uses TURN servers alone while its token demands that, whatever the application has configured', async () => {
  const iceServers = [{ urls: ['turn:own.example.com'], username: '1:alice', credential: 'x' }];
  const { connecting } = start({ iceServers, rtc: { iceTransportPolicy: 'all', bundlePolicy: 'max-bundle' } });
  await settle();
  await FakeSocket.last.receive({ type: 'auth_required' });
  await FakeSocket.last.receive(success({ iceTransportPolicy: 'relay' }), { seq: 1, type: 'users_in_room', users: [BOB] });
  const { connection } = (await connecting).peers.get('bob-1');
  const configured = () => [connection.configuration.iceTransportPolicy, connection.configuration.bundlePolicy, connection.configuration.iceServers, connection.restarts];

  assert.deepEqual(configured(), ['relay', 'max-bundle', iceServers, undefined]);
  await FakeSocket.last.receive({ seq: 2, type: 'ice_servers', iceServers: [], ttl: 60 });
  assert.deepEqual(configured(), ['relay', 'max-bundle', iceServers, undefined]);
  await FakeSocket.last.receive({ seq: 3, type: 'token_refreshed', expires_in: 60 });
  assert.deepEqual(configured(), ['all', 'max-bundle', iceServers, 1], 'another token allows everything');
  await FakeSocket.last.receive({ seq: 4, type: 'token_refreshed', expires_in: 60, iceTransportPolicy: 'relay' });
  assert.deepEqual(configured(), ['relay', 'max-bundle', iceServers, 2]);
});

test('reads the statistics of each browser, from the candidate pair in use', async () => {
  const { session } = await join();
  const peer = session.peers.get('bob-1');
  const stats = (...entries) => {
    peer.connection.getStats = async () => new Map(entries.map((entry) => [entry.id, entry]));
    return peer.stats();
  };
  const [host, relay] = ['host', 'relay'].map((candidateType) => ({ id: candidateType, type: 'local-candidate', candidateType }));
  const pair = { type: 'candidate-pair', state: 'succeeded', nominated: true, bytesSent: 10, bytesReceived: 20 };
  const inUse = { ...pair, id: 'P1', localCandidateId: 'relay', remoteCandidateId: 'host', currentRoundTripTime: 0.03 };
  const before = { ...pair, id: 'P2', localCandidateId: 'host', remoteCandidateId: 'host', currentRoundTripTime: 0.5 };
  const transport = { id: 'T', type: 'transport', selectedCandidatePairId: 'P1' };
  const rtcp = { id: 'R', type: 'remote-inbound-rtp', roundTripTime: 0.04 };
  const firefox = [{ ...inUse, selected: true }, { ...before, selected: false }, host, relay];

  assert.deepEqual(await stats({ ...transport, bytesSent: 50, bytesReceived: 60 }, inUse, before, host, relay),
    { path: 'relay', rtt: 30, bytesSent: 50, bytesReceived: 60 });
  assert.deepEqual(await stats(transport, ...firefox), { path: 'relay', rtt: 30, bytesSent: 20, bytesReceived: 40 });
  firefox[0].currentRoundTripTime = undefined;
  assert.deepEqual(await stats(rtcp, ...firefox), { path: 'relay', rtt: 40, bytesSent: 20, bytesReceived: 40 });
  assert.deepEqual(await stats(...firefox), { path: 'relay', bytesSent: 20, bytesReceived: 40 });
  const prflx = { id: 'prflx', type: 'remote-candidate', candidateType: 'prflx', address: '192.0.2.9', port: 9 };
  const early = { ...inUse, selected: true, localCandidateId: 'host', remoteCandidateId: 'prflx' };
  assert.equal((await stats(early, host, prflx)).path, 'srflx');
  peer.connection.remoteDescription = { type: 'answer', sdp: 'a=candidate:1 1 udp 1 192.0.2.9 9 typ relay raddr 192.0.2.1 rport 8' };
  assert.equal((await stats(early, host, prflx)).path, 'relay');
  assert.deepEqual(await stats({ ...transport, selectedCandidatePairId: undefined }), { bytesSent: 0, bytesReceived: 0 });
});

test('yields every event to an iterator, and ends it with the session', async () => {
  const { session } = await join();
  const types = [];
  const iterating = (async () => { for await (const { type } of session) types.push(type); })();
  await settle();
  await FakeSocket.last.receive({ seq: 2, type: 'message', data: 1, from: 'bob-1' }, { seq: 3, type: 'user_left', client_id: 'bob-1' });
  session.close();
  await iterating;

  assert.deepEqual(types, ['peer-joined', 'message', 'peer-left', 'state']);
  assert.equal(FakeSocket.last.closedWith, 1000);
});

// --- what environments do differently --------------------------------------------------------------

test('reports the members that were there when it joined, once, to listeners that follow connect', async () => {
  const { session } = await join();
  const joined = [];
  session.on('peer-joined', ({ peer, existing }) => joined.push([peer.id, existing]));

  await clock.advance(0);
  await FakeSocket.last.receive({ seq: 2, type: 'user_joined', client_id: 'carol-1', username: 'carol', polite: false });

  assert.deepEqual(joined, [['bob-1', true], ['carol-1', false]]);
});

test('refuses a message over the limit of the server, which may change, and goes on', async () => {
  const { connecting } = start();
  await FakeSocket.last.receive({ type: 'auth_required' });
  await FakeSocket.last.receive(success({ limits: { max_message_bytes: 1_000 } }), { seq: 1, type: 'users_in_room', users: [BOB] });
  const session = await connecting;
  const errors = [];
  session.on('error', ({ error }) => errors.push(error.code));
  const sent = () => FakeSocket.last.sent.filter(({ type }) => type === 'message').map(({ data, id }) => [data.length, id]);

  assert.throws(() => session.send('x'.repeat(1_000)), { code: 'message_too_big', fatal: false });
  assert.throws(() => session.send('\u00e9'.repeat(500)), { code: 'message_too_big' });
  session.send('x'.repeat(800));
  assert.deepEqual(sent(), [[800, 1]]);
  await FakeSocket.last.receive({ seq: 2, type: 'limits', limits: { max_message_bytes: 500 } });
  assert.throws(() => session.send('x'.repeat(500)), { code: 'message_too_big' });
  assert.throws(() => session.peers.get('bob-1').send('x'.repeat(500)), { code: 'message_too_big' });

  await FakeSocket.last.drop();
  await clock.advance(150);
  await FakeSocket.last.receive({ type: 'auth_required' });
  await FakeSocket.last.receive({ type: 'resumed', replayed: 0, users: [BOB], limits: { max_message_bytes: 300 } });
  assert.deepEqual([sent(), errors, session.state], [[], ['message_too_big'], 'connected'], 'what was kept is too long now');
});

test('renews its token by the lifetime that the server tells, whatever the clock says', async () => {
  const renewals = [];
  const { connecting } = start({ getToken: (renew) => { renewals.push(renew); return jwt(1); } });
  await settle();
  await FakeSocket.last.receive({ type: 'auth_required' });
  await FakeSocket.last.receive(success({ expires_in: 100 }), { seq: 1, type: 'users_in_room', users: [] });
  await connecting;

  const beat = async (ms) => {
    for (let passed = 0; passed < ms; passed += 5_000) {
      await clock.advance(5_000);
      await FakeSocket.last.receive({ type: 'pong' });
    }
  };
  await beat(45_000);
  assert.deepEqual(renewals, [false]);
  await beat(5_000);
  assert.deepEqual(renewals, [false, true]);
  await FakeSocket.last.receive({ seq: 2, type: 'token_refreshed', expires_in: 1_000 });
  await beat(900_000);
  assert.deepEqual(renewals, [false, true]);
});

test('renews a token that the error before the close names, where the close itself is hidden', async () => {
  for (const code of ['invalid_token', 'token_expired', 'logged_out', 'password_changed']) {
    const renewals = [];
    const { session } = await join({ getToken: (renew) => { renewals.push(renew); return 'T'; } });
    await FakeSocket.last.receive({ type: 'error', code, message: 'x', retry: false });
    await FakeSocket.last.drop(1006);
    await clock.advance(300);
    await FakeSocket.last.receive({ type: 'auth_required' });

    assert.deepEqual([FakeSocket.last.sent[0].type, renewals], ['auth_token', [false, true]], code);
    session.close();
  }
});

test('takes a close without a code, or one that is not clean, for a lost connection', async () => {
  for (const close of [{ code: 0, reason: '', wasClean: false }, { code: 0, reason: '' }, { code: 1000, reason: '', wasClean: false }]) {
    const { session, seen } = await join();
    FakeSocket.last.onclose(close);
    assert.deepEqual(seen.states.map(({ state, code }) => [state, code]), [['reconnecting', 1006]]);
    session.close();
  }
});

test('retries at once where a socket reports an error and never closes, and counts that attempt once', async () => {
  const states = [];
  start({ onState: ({ retryIn }) => states.push(retryIn) });
  const first = FakeSocket.last;
  first.onerror({});
  first.onclose({ code: 1006, reason: '', wasClean: false });
  assert.deepEqual(states, [150]);
  await clock.advance(150);
  assert.equal(FakeSocket.all.length, 2);

  const { seen } = await join();
  FakeSocket.last.onopen({});
  FakeSocket.last.onerror({});
  assert.deepEqual(seen.states, [], 'the close follows');
});

test('says why there is no socket, and ends', async () => {
  class Blocked { constructor() { throw new Error('blocked by a policy'); } }
  const { WebSocket } = globalThis;
  delete globalThis.WebSocket;
  try {
    for (const [given, message] of [[Blocked, /wss:.*blocked by a policy/], [undefined, /pass one to connect/]]) {
      const { connecting } = start({ WebSocket: given });
      await assert.rejects(connecting, { code: 'no_websocket', fatal: true, message });
    }
    assert.equal(clock.timers.size, 0);
  } finally {
    if (WebSocket) globalThis.WebSocket = WebSocket;
  }
});

test('leaves the room while its page is cached, joins anew after it, and reconnects as soon as it is offline', async () => {
  const page = new EventTarget();
  for (const name of ['addEventListener', 'removeEventListener']) globalThis[name] = page[name].bind(page);
  const fire = (name, more) => page.dispatchEvent(Object.assign(new Event(name), more));
  try {
    const { session, seen } = await join();
    fire('pagehide', { persisted: false });
    assert.deepEqual(seen.states, []);
    fire('pagehide', { persisted: true });
    assert.deepEqual([FakeSocket.last.closedWith, seen.states.at(-1).state], [1000, 'reconnecting']);
    fire('pageshow', { persisted: true });
    await FakeSocket.last.receive({ type: 'auth_required' });
    assert.deepEqual([FakeSocket.all.length, FakeSocket.last.sent[0].type], [2, 'auth_token']);
    await FakeSocket.last.receive(success(), { seq: 1, type: 'users_in_room', users: [BOB] });

    fire('offline');
    assert.deepEqual([FakeSocket.last.readyState, seen.states.at(-1).state], [1, 'reconnecting']);
    fire('online');
    await FakeSocket.last.receive({ type: 'auth_required' });
    assert.deepEqual([FakeSocket.all.length, FakeSocket.last.sent[0].type], [3, 'resume']);
    session.close();
    fire('offline');
    assert.equal(seen.states.at(-1).state, 'closed');
  } finally {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  }
});

/** A session with Bob, and what a change of the states of his connection does: when ICE restarts, in seconds, during the next `seconds`. */
async function callBob(polite) {
  const { session } = await join();
  const peer = session.peers.get('bob-1');
  peer.polite = polite;
  const restartsAfter = async (states, seconds) => {
    const { connection } = peer;
    const [began, times] = [clock.now, []];
    connection.restartIce = () => times.push((clock.now - began) / 1000);
    Object.assign(connection, states).onconnectionstatechange();
    for (let passed = 0; passed < seconds; passed += 10) {
      await clock.advance(10_000);
      await FakeSocket.last.receive({ type: 'limits' }); // the server is there
    }
    return times;
  };
  return { session, peer, restartsAfter };
}

test('restarts ICE until it helps, after longer and longer pauses', async () => {
  const expected = { failed: [0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5], disconnected: [3, 9, 21, 45, 75, 105] };
  for (const [connectionState, times] of Object.entries(expected)) {
    for (const polite of [false, true]) {
      const { session, restartsAfter } = await callBob(polite);
      const factor = polite ? 3 : 1;

      assert.deepEqual(await restartsAfter({ connectionState, iceConnectionState: 'disconnected' }, 120 * factor), times.map((time) => time * factor));
      const reports = FakeSocket.last.sent.filter(({ type }) => type === 'call_report').map(({ outcome }) => outcome);
      assert.deepEqual(reports, ['failed'], 'the server is told once');

      assert.deepEqual(await restartsAfter({ connectionState: 'connected', iceConnectionState: 'connected' }, 120), []);
      assert.deepEqual(await restartsAfter({ connectionState: 'failed', iceConnectionState: 'failed' }, 10), polite ? [1.5, 4.5] : [0.5, 1.5, 3.5, 7.5]);
      session.close();
      assert.equal(clock.timers.size, 0);
    }
  }
});

test('stats() answers also where the browser never does: Firefox (153), once the connection is closed', async () => {
  const { session } = await join();
  const peer = session.peers.get('bob-1');
  peer.connection.getStats = () => new Promise(() => {});
  const asked = peer.stats();
  session.close();
  assert.deepEqual(await asked, { bytesSent: 0, bytesReceived: 0 });
});

test('a getToken that takes longer than the server waits is asked once, and its token used for the next socket', async () => {
  let asked = 0;
  let answer;
  const { connecting, errors } = start({ token: undefined, getToken: () => { asked += 1; return new Promise((done) => { answer = done; }); } });
  await FakeSocket.last.receive({ type: 'auth_required' });
  await FakeSocket.last.drop(1008, 'Authentication required');
  await clock.advance(5_000);
  assert.equal(FakeSocket.all.length, 2);
  await FakeSocket.last.receive({ type: 'auth_required' });
  answer('T');
  await settle();
  assert.deepEqual([asked, FakeSocket.last.sent.map(({ token }) => token), errors], [1, ['T'], []]);
  await FakeSocket.last.receive(success(), { seq: 1, type: 'users_in_room', users: [] });
  (await connecting).close();
});

const CONNECTED = { connectionState: 'connected', iceConnectionState: 'connected' };
/** An offer of Bob's connection that restarts ICE. */
const restart = (n) => ({ type: 'offer', pc: 'b', n, sdp: `a=ice-ufrag:u${n}` });

test('restarts ICE again where it goes on searching, until there is a path', async () => {
  // So it is in Firefox (153): the state stays `connected`, and the statistics tell.
  const { session, peer, restartsAfter } = await callBob(false);
  let iceState = 'connected';
  peer.connection.getStats = async () => new Map([['t', { type: 'transport', iceState }], ['r', { type: 'inbound-rtp' }]]);
  await restartsAfter(CONNECTED, 0);
  const times = [];
  peer.connection.restartIce = () => times.push(clock.now);
  const advance = async (seconds) => {
    for (let passed = 0; passed < seconds; passed += 5) {
      await clock.advance(5_000);
      await FakeSocket.last.receive({ type: 'limits' });
    }
    return times.splice(0).length;
  };

  peer.handleSignal('offer', restart(1));
  await settle();
  await clock.advance(300);
  assert.equal(await advance(60), 0, 'a path was found');
  iceState = 'checking';
  peer.handleSignal('offer', restart(2));
  await settle();
  await clock.advance(300);
  assert.equal(await advance(40), 3, 'after 5, 10 and 20 s');
  iceState = 'connected';
  assert.equal(await advance(120), 0, 'it has helped');
  session.close();
  assert.equal(clock.timers.size, 0);
});

test('the description of an ICE restart contains a candidate, if one comes soon', async () => {
  const { session, peer, restartsAfter } = await callBob(false);
  const sent = () => FakeSocket.last.sent.splice(0).filter(({ type }) => /answer|candidate/.test(type)).map(({ answer, candidate }) => answer?.sdp ?? candidate);
  peer.handleSignal('offer', restart(1));
  await settle();
  assert.deepEqual(sent(), ['v=0'], 'the first answer waits for nothing');
  await restartsAfter(CONNECTED, 0);
  const pc = peer.connection;
  const gather = async (candidate) => {
    pc.localDescription.sdp += ` a=candidate:${candidate}`;
    pc.onicecandidate({ candidate });
    await settle();
  };

  peer.handleSignal('offer', restart(2));
  await settle();
  assert.deepEqual(sent(), []);
  await gather('1');
  await gather('2');
  assert.deepEqual(sent(), ['v=0 a=candidate:1', '2']);

  peer.handleSignal('offer', restart(3));
  await settle();
  await clock.advance(299);
  assert.deepEqual(sent(), []);
  await clock.advance(1);
  assert.deepEqual(sent(), ['v=0']);
  await gather('3');
  assert.deepEqual(sent(), ['3']);

  pc.setLocalDescription = async () => { pc.localDescription = { type: 'answer', sdp: 'a=candidate:3' }; };
  peer.handleSignal('offer', restart(4));
  await settle();
  assert.deepEqual(sent(), ['a=candidate:3'], 'no restart');
  session.close();
});

test('replaces a connection that has failed where its DTLS transport is lost, so that data channels outlive a TURN server', async () => {
  for (const [before, iceConnectionState, dtls, isReplaced, what] of [
    [CONNECTED, 'disconnected', 'connected', false, 'a TURN server is gone, in Chromium'],
    [CONNECTED, 'disconnected', 'failed', true, 'the same in Firefox, which sends nothing after an ICE restart'],
    [CONNECTED, 'failed', 'failed', true, 'the same, where ICE says so first'],
    [CONNECTED, 'connected', 'failed', true, 'a TURN connection is closed, in Firefox with a data channel'],
    [null, 'failed', 'failed', false, 'a TURN server was never there, in Firefox'],
    [null, 'connected', 'failed', true, 'a handshake has failed'],
  ]) {
    for (const place of ['sctp', 'sender']) {
      const { session, peer, restartsAfter } = await callBob(false);
      peer.handleSignal('answer', { type: 'answer', pc: 'b', peer: 'replaced' }); // Bob's client numbers its offers
      await settle();
      const end = { transport: { state: dtls } };
      Object.assign(peer.connection, place === 'sctp' ? { sctp: end } : { getSenders: () => [{ transport: null }, end] });
      if (before) await restartsAfter(before, 0);

      const restarts = await restartsAfter({ connectionState: 'failed', iceConnectionState }, 10);

      assert.deepEqual([FakeConnection.all.length, restarts.length], isReplaced ? [2, 0] : [1, 4], `${what}, ${place}`);
      session.close();
      FakeConnection.all = [];
    }
  }
});

test('goes on with the other ICE servers where the browser refuses one, and reports it', async () => {
  class Choosy extends FakeConnection {
    constructor(configuration) {
      super(configuration);
      this.setConfiguration(configuration);
    }
    setConfiguration({ iceServers = [] }) {
      if (iceServers.some(({ urls }) => [urls].flat().some((url) => /:25$/.test(url)))) throw new SyntaxError('blocked port');
      this.configuration = { iceServers };
    }
  }
  const servers = [{ urls: ['stun:a:3478', 'stun:a:25'] }, { urls: 'turn:b:3478', username: 'u', credential: 'c' }];
  const expected = [{ urls: 'stun:a:3478' }, servers[1]];
  const { connecting } = start({ RTCPeerConnection: Choosy });
  await FakeSocket.last.receive({ type: 'auth_required' });
  await FakeSocket.last.receive(success({ iceServers: servers }), { seq: 1, type: 'users_in_room', users: [BOB] });
  const session = await connecting;
  const errors = [];
  session.on('error', ({ error }) => errors.push([error.code, /stun:a:25.*blocked port/.test(error.message)]));
  await clock.advance(0);

  const peer = session.peers.get('bob-1');
  assert.deepEqual([peer.connection.configuration.iceServers, errors], [expected, [['ice_server_refused', true]]]);
  await FakeSocket.last.receive({ seq: 2, type: 'ice_servers', iceServers: servers, ttl: 60 });
  assert.deepEqual([peer.connection.configuration.iceServers, errors.length], [expected, 2]);
});

test('reports what a connection throws, and goes on', async () => {
  class Throwing extends FakeConnection {
    constructor(configuration) {
      super(configuration);
      if (configuration.bundlePolicy === 'wrong') throw new TypeError('no such policy');
    }
    restartIce() { throw new Error('Not implemented'); }
    addTrack() { throw new Error('no track'); }
  }
  for (const [rtc, expected] of [[{}, ['Not implemented', 'no track']], [{ bundlePolicy: 'wrong' }, ['no such policy']]]) {
    const { session, seen } = await join({ RTCPeerConnection: Throwing, rtc });
    await clock.advance(0);
    session.peers.get('bob-1').restartIce();
    session.publish({ getTracks: () => [{ kind: 'audio' }] });
    assert.deepEqual(seen.errors.map(({ code, message }) => [code, message.split('Error: ')[1]]), expected.map((text) => ['media_failed', text]));
    assert.equal(session.state, 'connected');
    session.close();
  }
});

// --- offers ----------------------------------------------------------------------------------------

/** A connection that can make offers, and notes the descriptions that it is given. */
class OfferingConnection extends FakeConnection {
  set = [];
  sdp = 'v=0';
  getTransceivers() { return []; }
  async createOffer() { return { type: 'offer', sdp: this.sdp }; }
  async setLocalDescription(description) {
    this.set.push(description.type);
    this.signalingState = description.type === 'rollback' ? 'stable' : 'have-local-offer';
  }
}

const offersOf = (socket) => socket.sent.filter(({ type }) => type === 'offer');

/** Fifteen seconds of a connection that lives. */
async function beat() {
  await clock.advance(15_000);
  await FakeSocket.last.receive({ type: 'pong', seq: (FakeSocket.last.seq = (FakeSocket.last.seq ?? 1) + 1) });
}

test('takes an offer back that is not answered for 30 s, reports it, and gives up after three', async () => {
  const { seen } = await join({ RTCPeerConnection: OfferingConnection });
  const pc = FakeConnection.all.at(-1);
  for (let round = 1; round <= 4; round += 1) {
    pc.onnegotiationneeded(); // as a browser fires it again after a rollback
    await settle();
    const made = Math.min(round, 3);
    assert.equal(offersOf(FakeSocket.last).length, made, `round ${round}`);
    await beat();
    await clock.advance(14_900);
    assert.equal(pc.set.filter((type) => type === 'rollback').length, made - (round <= 3 ? 1 : 0), 'not before 30 s');
    await clock.advance(100);
    await FakeSocket.last.receive({ type: 'pong', seq: (FakeSocket.last.seq += 1) });
    assert.equal(pc.set.filter((type) => type === 'rollback').length, made);
  }
  assert.deepEqual(seen.errors.map(({ code, message }) => [code, message]), Array(3).fill(['media_failed', 'bob: Error: an offer was not answered']));
  assert.equal(pc.signalingState, 'stable');
});

test('waits longer for an answer while the peer has no connection to the server', async () => {
  const { seen } = await join({ RTCPeerConnection: OfferingConnection });
  const pc = FakeConnection.all.at(-1);
  pc.onnegotiationneeded();
  await settle();
  await FakeSocket.last.receive({ type: 'peer_state', client_id: 'bob-1', username: 'bob', state: 'reconnecting' });
  for (let round = 0; round < 3; round += 1) await beat();
  assert.deepEqual([pc.set, seen.errors], [['offer'], []]);
  await FakeSocket.last.receive({ type: 'peer_state', client_id: 'bob-1', username: 'bob', state: 'connected' });
  for (let round = 0; round < 3; round += 1) await beat();
  assert.deepEqual([pc.set, seen.errors.length], [['offer', 'rollback'], 1]);
});

test('sends no offer in which one number means two header extensions', async () => {
  await join({ RTCPeerConnection: OfferingConnection });
  const pc = FakeConnection.all.at(-1);
  const kept = ['m=audio 9', 'a=extmap:1 urn:level', 'a=extmap:7 urn:transport', 'm=video 9', 'a=extmap:7/sendonly urn:transport', 'a=extmap:8 urn:color', ''];
  const colliding = [...kept.slice(0, 5), 'a=extmap:7 urn:timing', ...kept.slice(5)];
  pc.sdp = colliding.join('\r\n');
  pc.onnegotiationneeded();
  await settle();
  assert.equal(offersOf(FakeSocket.last)[0].offer.sdp, kept.join('\r\n'));
});

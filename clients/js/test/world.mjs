// Two members with the client library, a model of their browsers, and a model of the server, in one event loop whose order
// a seed decides.

import { connect } from '../dist/signaling.js';
import { modelOf, Stream } from './browser_model.mjs';

const real = { setTimeout: globalThis.setTimeout, clearTimeout: globalThis.clearTimeout, random: Math.random };
const breathe = () => new Promise((done) => setImmediate(done));

/** A generator of numbers in [0, 1): mulberry32. */
export function randomOf(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A timer of more than this, in milliseconds, runs only when nothing else is left to do. */
const LONG = 2_000;

export class World {
  now = 0;
  queues = new Map();
  timers = new Map();
  lastTimer = 0;
  members = new Map();
  /** What no page may report. */
  failures = [];

  constructor(seed) {
    this.random = randomOf(seed);
    globalThis.setTimeout = (run, ms = 0) => {
      this.timers.set(++this.lastTimer, { at: this.now + ms, run, isLong: ms > LONG });
      return this.lastTimer;
    };
    globalThis.clearTimeout = (timer) => this.timers.delete(timer);
    Math.random = this.random;
  }

  end() {
    Object.assign(globalThis, { setTimeout: real.setTimeout, clearTimeout: real.clearTimeout });
    Math.random = real.random;
  }

  pick(items) { return items[Math.floor(this.random() * items.length)]; }

  /** Puts a task at the end of one of the queues, which are served in a random order. */
  queue(name, task) {
    if (!this.queues.has(name)) this.queues.set(name, []);
    this.queues.get(name).push(task);
  }

  /** Runs one task or timer; false if there is none but long timers, unless `isPatient`. */
  async step(isPatient = false) {
    await breathe();
    const ready = [...this.queues.values()].filter((tasks) => tasks.length);
    const due = [...this.timers].filter(([, { isLong }]) => isPatient || !isLong).sort(([, a], [, b]) => a.at - b.at)[0];
    const choices = due ? [...ready, due] : ready;
    if (!choices.length) return false;
    const chosen = this.pick(choices);
    if (chosen === due) {
      const [timer, { at, run }] = due;
      this.timers.delete(timer);
      this.now = Math.max(this.now, at);
      run();
    } else chosen.shift()();
    await breathe();
    return true;
  }

  /** Until nothing is left to do, and the pages are connected again. */
  async rest(pages) {
    for (let steps = 0; await this.step() || await this.step(pages.some(({ session }) => session.state !== 'connected')); steps += 1) {
      if (steps > 20_000) throw new Error('the negotiation does not end');
    }
  }

  // --- the server ------------------------------------------------------------------------------------

  socketClass(page) {
    const world = this;
    return class {
      readyState = 1;
      constructor() {
        page.socket = this;
        this.receive({ type: 'auth_required' });
      }
      receive(frame) {
        world.queue(`to ${page.id}`, () => this.readyState === 1 && this.onmessage({ data: JSON.stringify(frame) }));
      }
      send(text) {
        world.queue(`from ${page.id}`, () => this.readyState === 1 && world.handle(page, this, JSON.parse(text)));
      }
      close() { this.readyState = 3; }
    };
  }

  tell(id, frame) {
    const member = this.members.get(id);
    if (!member) return;
    const numbered = { ...frame, seq: (member.seq += 1) };
    member.sent.push(numbered);
    if (member.socket) member.socket.receive(numbered);
  }

  handle(page, socket, frame) {
    const { id } = page;
    const member = this.members.get(id);
    if (frame.type === 'resume') {
      if (!member || frame.resume_token !== member.token) return socket.receive({ type: 'error', code: 'resume_failed', message: 'x' });
      const missed = member.sent.filter(({ seq }) => seq > frame.last_seq);
      member.socket = socket;
      socket.receive({ type: 'resumed', replayed: missed.length, resume_token: member.token, users: [] });
      for (const one of missed) socket.receive(one);
    } else if (frame.type === 'auth_token') {
      this.remove(id, member?.page === page);
      const others = [...this.members.keys()];
      const joined = { page, socket, seq: 0, sent: [], token: `${this.random()}`, lastId: 0 };
      this.members.set(id, joined);
      socket.receive({ type: 'auth_success', client_id: id, user: id, resume_token: joined.token });
      this.tell(id, { type: 'users_in_room', users: others.map((other) => ({ client_id: other, username: other, polite: true })) });
      for (const other of others) this.tell(other, { type: 'user_joined', client_id: id, username: id, polite: false });
    } else if (member?.socket === socket) {
      if (frame.id <= member.lastId) return;
      if (frame.id) member.lastId = frame.id;
      if (frame.type === 'ping') this.tell(id, { type: 'pong' });
      else if (frame.to) this.tell(frame.to, { ...frame, from: id, to: undefined, id: undefined, ack: undefined });
    }
  }

  remove(id, isSilent) {
    if (!this.members.delete(id) || isSilent) return;
    for (const other of this.members.keys()) this.tell(other, { type: 'user_left', client_id: id });
  }

  /** The sockets break, of all members or of one; with `isLost` the server has forgotten them. */
  breakSockets(pages, isLost) {
    if (isLost) this.members.clear();
    for (const page of pages) {
      const { socket } = page;
      if (!socket || socket.readyState !== 1) continue;
      socket.readyState = 3;
      const member = this.members.get(page.id);
      if (member) member.socket = undefined;
      this.queue(`to ${page.id}`, () => socket.onclose({ code: 1006, reason: '' }));
    }
  }

  // --- a page ----------------------------------------------------------------------------------------

  async open(id, browser) {
    const page = { id, browser, streams: [], channels: [], heard: new Set() };
    page.Connection = modelOf(browser, (task) => this.queue(`page ${id}`, task));
    const connecting = connect({
      url: 'http://x', room: 'r', token: 'T', clientId: id, WebSocket: this.socketClass(page), RTCPeerConnection: page.Connection,
    });
    connecting.then((session) => {
      page.session = session;
      session.on('error', ({ error }) => this.failures.push(`${id} (${browser}): ${error.message}`));
      session.on('channel', ({ channel }) => page.heard.add(channel.label));
    }, (error) => this.failures.push(`${id}: ${error}`));
    while (!page.session) await this.step();
    return page;
  }

  close(page) {
    page.session.close();
    page.socket.readyState = 3;
    this.remove(page.id, false);
  }
}

export { Stream };

// A member of a room that can resume.

import WebSocket from '../browser/node_modules/ws/wrapper.mjs';
import { certificate, eventually } from '../browser/harness.mjs';

export class Member {
  constructor(url, room) {
    this.received = [];
    this.pings = 0;
    this.socket = new WebSocket(`${url.replace('http', 'ws')}/ws/${room}`, { ca: certificate().ca });
    this.closed = new Promise((done) => this.socket.once('close', (code, reason) => { this.end = `${code} ${reason}`.trim(); done(); }));
    this.socket.on('ping', () => { this.pings += 1; });
    this.socket.on('error', () => {}).on('message', (text) => {
      const message = JSON.parse(text);
      this.received.push(message);
      this.seq = message.seq ?? this.seq;
      this.resumeToken = message.resume_token ?? this.resumeToken;
    });
  }

  send(message) { this.socket.send(JSON.stringify(message)); }

  /** The oldest message of one of these types. */
  receive(...types) {
    return eventually(() => `${types} comes, after ${JSON.stringify(this.received)} ${this.end ?? ''}`, () => this.received.find(({ type }) => types.includes(type)));
  }

  /** Whether the connection ends before so many pings have come. */
  async isCutWithin(pings) {
    const last = this.pings + pings;
    await eventually(() => `${pings} pings come`, () => this.end !== undefined || this.pings >= last);
    return this.end !== undefined;
  }

  /** What comes of an attempt to join, `in` or the code of the error, and the member. */
  static async attempt(url, room, token, clientId) {
    const member = new Member(url, room);
    await member.receive('auth_required');
    member.send({ type: 'auth_token', token, clientId, features: ['resume'] });
    const { type, code } = await member.receive('users_in_room', 'error');
    return [type === 'error' ? code : 'in', member];
  }

  static async join(url, room, token, clientId) {
    const [outcome, member] = await Member.attempt(url, room, token, clientId);
    if (outcome !== 'in') throw new Error(`${clientId} does not join: ${outcome}`);
    return member;
  }

  /** What comes of a resume on a new connection, `resumed` or the code of the error, and the member. */
  static resume(url, room, { resumeToken, seq }) {
    return eventually(() => 'a connection for the resume is there', async () => {
      const member = Object.assign(new Member(url, room), { resumeToken, seq });
      if (!await Promise.race([member.receive('auth_required'), member.closed])) return undefined;
      member.send({ type: 'resume', resume_token: resumeToken, last_seq: seq ?? 0 });
      const { type, code } = await member.receive('resumed', 'error');
      return [type === 'resumed' ? 'resumed' : code, member];
    });
  }
}

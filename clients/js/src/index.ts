/** WebRTC calls over signaling-server. Start at {@link connect}. */

import { Emitter } from './events.js';
import { Peer, type PeerEvents } from './peer.js';
import { Signal, SignalError, type Member, type SignalOptions, type State, type StateEvent } from './signal.js';

export { Peer, SignalError };
export { signIn, type Account } from './login.js';
export type { PeerEvents, SignalOptions, State, StateEvent };
export type { Path, PeerStats } from './peer.js';

export interface ConnectOptions extends SignalOptions {
  /** In place of those that the server hands out. */
  iceServers?: RTCIceServer[];
  /** For every RTCPeerConnection, such as `{ iceTransportPolicy: 'relay' }`. */
  rtc?: RTCConfiguration;
  /** Hears every state, also those before we are in. */
  onState?: (event: StateEvent) => void;
  /** Ends the session, also while `connect` is still trying; that rejects with the signal's reason. */
  signal?: AbortSignal;
  /** An RTCPeerConnection class, where there is no global one; without any, peers can be talked to and not called. */
  RTCPeerConnection?: typeof RTCPeerConnection;
}

export interface SessionEvents {
  'peer-joined': { peer: Peer };
  'peer-left': { peer: Peer };
  track: PeerEvents['track'];
  channel: PeerEvents['channel'];
  /** `peer` has said `data` by the way of the server. */
  message: PeerEvents['message'];
  /** An administrator of the server has said `data`. */
  'server-message': { data: any };
  /** A peer's connection has changed. */
  peer: PeerEvents['state'];
  state: StateEvent;
  error: { error: SignalError };
}

/** How long a peer that was connected may be missing after we had to sit down anew. */
const MISSING_FOR = 30_000;

/** One room, and an RTCPeerConnection to everyone else in it. */
export class Session extends Emitter<SessionEvents> {
  /** The others, by client id. */
  readonly peers = new Map<string, Peer>();
  /** What is published, for peers that are still to come. @internal */
  readonly streams = new Set<MediaStream>();
  /** @internal */
  readonly signal: Signal;
  /** @internal */
  readonly RTCPeerConnection: typeof RTCPeerConnection | undefined;
  /** Who is there by the server's word. */
  private present = new Set<string>();
  private missing: ReturnType<typeof setTimeout> | undefined;

  /** @internal */
  constructor(private options: ConnectOptions) {
    super();
    if (options.onState) this.on('state', options.onState);
    this.RTCPeerConnection = options.RTCPeerConnection ?? globalThis.RTCPeerConnection;
    this.signal = new Signal(options, {
      joined: (members) => this.joined(members),
      resumed: () => this.peers.forEach((peer) => peer.mends()),
      frame: (frame) => this.heard(frame),
      state: (event) => {
        if (event.state === 'closed') this.over();
        this.emit('state', event);
        if (event.state === 'closed') this.finish();
      },
      error: (error) => this.emit('error', { error }),
      iceServers: () => {
        if (this.options.iceServers) return;
        for (const peer of this.peers.values()) peer.reconfigures(this.configuration).catch((error) => this.fails(peer, error));
      },
    });
  }

  /** Our own client id. */
  get id(): string {
    return this.signal.clientId!;
  }

  /** Our own name. */
  get username(): string {
    return this.signal.username!;
  }

  get state(): State {
    return this.signal.state;
  }

  /** @internal */
  get configuration(): RTCConfiguration {
    return { ...this.options.rtc, iceServers: this.options.iceServers ?? this.signal.iceServers };
  }

  /** Sends every track of `stream` to everyone, also to those who come later. */
  publish(stream: MediaStream): void {
    this.streams.add(stream);
    for (const peer of this.peers.values()) for (const track of stream.getTracks()) peer.publish(track, stream);
  }

  /** No longer sends what is in `stream`; it is not stopped. */
  unpublish(stream: MediaStream): void {
    this.streams.delete(stream);
    for (const peer of this.peers.values()) for (const track of stream.getTracks()) peer.unpublish(track);
  }

  /** Sends `next` in place of `old` (another camera), without negotiating again; `old` is not stopped. */
  async replaceTrack(old: MediaStreamTrack, next: MediaStreamTrack): Promise<void> {
    for (const stream of this.streams) {
      if (!stream.getTracks().includes(old)) continue;
      stream.removeTrack(old);
      stream.addTrack(next);
    }
    await Promise.all([...this.peers.values()].map((peer) => peer.replaceTrack(old, next)));
  }

  /** Says something to everyone, or to the one whose client id is `to`, by the way of the server. */
  send(data: unknown, { to }: { to?: string } = {}): void {
    this.signal.say({ type: 'message', data, to });
  }

  /** Leaves. Tracks go on; they are whose who made them. */
  close(): void {
    this.signal.close();
  }

  /** @internal */
  fails(peer: Peer, error: unknown): void {
    if (this.peers.get(peer.id) === peer) {
      this.emit('error', { error: new SignalError('media_failed', `${peer.username}: ${error}`) });
    }
  }

  private joined(members: Member[]): void {
    this.present = new Set(members.map((member) => member.client_id));
    for (const member of members) {
      const known = this.peers.get(member.client_id);
      if (known) {
        known.polite = member.polite;
        known.asksAgain();
      } else this.meets(member, true);
    }
    // Calls go on without a server: whoever is missing may only be slower to come back than we are.
    for (const [id, peer] of this.peers) {
      if (!this.present.has(id) && peer.connection.connectionState !== 'connected') this.leaves(id);
    }
    clearTimeout(this.missing);
    this.missing = setTimeout(() => {
      for (const id of this.peers.keys()) if (!this.present.has(id)) this.leaves(id);
    }, MISSING_FOR);
  }

  private heard(frame: any): void {
    const peer = this.peers.get(frame.from ?? frame.client_id);
    switch (frame.type) {
      case 'user_joined':
        this.present.add(frame.client_id);
        if (peer) peer.polite = frame.polite;
        else this.meets(frame, false);
        break;
      case 'user_left':
        this.present.delete(frame.client_id);
        this.leaves(frame.client_id);
        break;
      case 'peer_state':
        peer?.says({ state: frame.state });
        break;
      case 'message':
        peer?.says({ data: frame.data });
        break;
      case 'server_message':
        this.emit('server-message', { data: frame.data });
        break;
      case 'offer':
      case 'answer':
        peer?.hears(frame.type, frame[frame.type]);
        break;
      case 'ice_candidate':
        peer?.hears(frame.type, frame.candidate || null);
    }
  }

  private meets(member: Member, isCaller: boolean): void {
    const peer = new Peer(this, member, isCaller);
    this.peers.set(peer.id, peer);
    for (const name of ['track', 'channel', 'message'] as const) peer.on(name, (event: any) => this.emit(name, event));
    peer.on('state', (event) => this.emit('peer', event));
    this.emit('peer-joined', { peer });
  }

  private leaves(id: string): void {
    const peer = this.peers.get(id);
    if (!peer) return;
    this.peers.delete(id);
    peer.ends();
    this.emit('peer-left', { peer });
  }

  private over(): void {
    clearTimeout(this.missing);
    for (const id of [...this.peers.keys()]) this.leaves(id);
  }
}

/**
 * Enters a room; resolves when we are in.
 *
 * @throws SignalError if the server does not let us in. While it cannot be reached, this goes on trying.
 */
export function connect(options: ConnectOptions): Promise<Session> {
  const { signal } = options;
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const session = new Session(options);
    signal?.addEventListener('abort', () => {
      session.close();
      reject(signal.reason);
    });
    const off = [
      session.on('state', ({ state }) => state === 'connected' && done(() => resolve(session))),
      session.on('error', ({ error }) => error.fatal && done(() => reject(error))),
    ];
    const done = (settle: () => void) => {
      off.forEach((stop) => stop());
      settle();
    };
  });
}

import { SignalError } from './error.js';
import { Emitter } from './events.js';
import { Membership, type Member, type SignalOptions, type State, type StateEvent } from './membership.js';
import { Peer, type PeerEvents } from './peer.js';

export interface ConnectOptions extends SignalOptions {
  /** Used in place of the ICE servers that the server provides. */
  iceServers?: RTCIceServer[];
  /** Configuration of every RTCPeerConnection, such as `{ iceTransportPolicy: 'relay' }`. A token may demand that, too. */
  rtc?: RTCConfiguration;
  /** Called for every state, also before the client has joined. */
  onState?: (event: StateEvent) => void;
  /** Ends the session, also while `connect` is still trying; `connect` then rejects with the reason of the signal. */
  signal?: AbortSignal;
  /**
   * An RTCPeerConnection class, for environments without a global one. Without any, peers can exchange messages through
   * the server, and cannot be called.
   */
  RTCPeerConnection?: typeof RTCPeerConnection;
}

export interface SessionEvents {
  /** `existing` is true for the members that were there when this client joined, or joined again. */
  'peer-joined': { peer: Peer; existing: boolean };
  'peer-left': { peer: Peer };
  track: PeerEvents['track'];
  /** The peer publishes this track no longer, or its connection is replaced. */
  'track-removed': PeerEvents['track-removed'];
  channel: PeerEvents['channel'];
  /** `peer` has sent `data` through the server. */
  message: PeerEvents['message'];
  /** An administrator of the server has sent `data` to the room. */
  'server-message': { data: any };
  /** The state of a peer's connection has changed. */
  peer: PeerEvents['state'];
  state: StateEvent;
  error: { error: SignalError };
}

/** How long a connected peer may be missing from the room after a join without resume, in milliseconds. */
const MISSING_PEER_TIMEOUT = 30_000;

/** One room, and an RTCPeerConnection to every other member. */
export class Session extends Emitter<SessionEvents> {
  /** The other members, by client id. */
  readonly peers = new Map<string, Peer>();
  /** The published streams and their labels, for peers that join later. @internal */
  readonly streams = new Map<MediaStream, string | undefined>();
  /** @internal */
  readonly membership: Membership;
  /** @internal */
  readonly RTCPeerConnection: typeof RTCPeerConnection | undefined;
  /** The client ids of the members that the server lists; `peers` may also hold missing ones. */
  private present = new Set<string>();
  private missingTimer: ReturnType<typeof setTimeout> | undefined;
  /** Events of the first join, for listeners that are added once `connect` has resolved. */
  private pending: (() => void)[] = [];
  private hasJoined = false;
  private pendingTimer: ReturnType<typeof setTimeout> | undefined;
  /** The ICE servers, without those that the RTCPeerConnection class refuses. */
  private iceServers: RTCIceServer[] = [];

  /** @internal */
  constructor(private options: ConnectOptions) {
    super();
    if (options.onState) this.on('state', options.onState);
    this.RTCPeerConnection = options.RTCPeerConnection ?? globalThis.RTCPeerConnection;
    this.iceServers = this.usable(options.iceServers ?? []);
    this.membership = new Membership(options, {
      joined: (members) => this.handleJoined(members),
      resumed: () => this.peers.forEach((peer) => peer.recover()),
      frame: (frame) => this.handleFrame(frame),
      state: (event) => {
        if (event.state === 'closed') this.removeAllPeers();
        this.emit('state', event);
        if (event.state === 'closed') this.finish();
      },
      error: (error) => this.emit('error', { error }),
      iceServers: (servers, isNewPolicy) => {
        if (!this.options.iceServers) this.iceServers = this.usable(servers);
        else if (!isNewPolicy) return;
        for (const peer of this.peers.values()) {
          peer.updateIceServers(this.configuration, isNewPolicy).catch((error) => this.reportMediaError(peer, error));
        }
      },
    });
  }

  /** The client id of this client. */
  get id(): string {
    return this.membership.clientId!;
  }

  /** The username of this client. */
  get username(): string {
    return this.membership.username!;
  }

  get state(): State {
    return this.membership.state;
  }

  /** @internal */
  get configuration(): RTCConfiguration {
    const { iceTransportPolicy } = this.membership;
    return { ...this.options.rtc, iceServers: this.iceServers, ...(iceTransportPolicy && { iceTransportPolicy }) };
  }

  /**
   * Sends every track of `stream` to all peers, also to those that join later. They receive `label` with each track, for
   * example to tell a shared screen from a camera.
   */
  publish(stream: MediaStream, label = this.streams.get(stream)): void {
    this.streams.set(stream, label);
    for (const peer of this.peers.values()) for (const track of stream.getTracks()) peer.publish(track, stream);
  }

  /** Stops sending the tracks of `stream`. The tracks themselves are not stopped. */
  unpublish(stream: MediaStream): void {
    this.streams.delete(stream);
    for (const peer of this.peers.values()) for (const track of stream.getTracks()) peer.unpublish(track);
  }

  /** Sends `next` in place of `old` (another camera), without a new negotiation; `old` is not stopped. */
  async replaceTrack(old: MediaStreamTrack, next: MediaStreamTrack): Promise<void> {
    for (const stream of this.streams.keys()) {
      if (!stream.getTracks().includes(old)) continue;
      stream.removeTrack(old);
      stream.addTrack(next);
    }
    await Promise.all([...this.peers.values()].map((peer) => peer.replaceTrack(old, next)));
  }

  /**
   * Sends any JSON value through the server, to every peer or to the one with the client id `to`.
   *
   * @throws SignalError `message_too_big` for what is longer than the server accepts; the session goes on.
   */
  send(data: unknown, { to }: { to?: string } = {}): void {
    this.membership.send({ type: 'message', data, to });
  }

  /** Leaves the room. Tracks are not stopped; they belong to the caller. */
  close(): void {
    this.membership.close();
  }

  /** @internal */
  reportMediaError(peer: Peer, error: unknown): void {
    if (this.peers.get(peer.id) === peer) this.report('media_failed', `${peer.username}: ${error}`);
  }

  private report(code: string, message: string): void {
    this.emitLater(() => this.emit('error', { error: new SignalError(code, message) }));
  }

  /** Calls `emit` once the listeners that follow `connect` are there, and in order. */
  private emitLater(emit: () => void): void {
    if (this.hasJoined) return emit();
    this.pending.push(emit);
  }

  private emitPending(): void {
    clearTimeout(this.pendingTimer);
    this.hasJoined = true;
    for (const emit of this.pending.splice(0)) emit();
  }

  /** One server that the browser refuses, such as one on a port that Firefox blocks, must not cost the others. */
  private usable(servers: RTCIceServer[]): RTCIceServer[] {
    const { RTCPeerConnection: Class } = this;
    const refusal = (iceServers: RTCIceServer[]): unknown => {
      try {
        Class && new Class({ iceServers }).close();
      } catch (error) {
        return error;
      }
    };
    if (!servers.length || !refusal(servers)) return servers;
    return servers
      .flatMap((server) => [server.urls].flat().map((urls) => ({ ...server, urls })))
      .filter((server) => {
        const error = refusal([server]);
        if (error) this.report('ice_server_refused', `${server.urls}: ${error}`);
        return !error;
      });
  }

  private handleJoined(members: Member[]): void {
    this.present = new Set(members.map((member) => member.client_id));
    for (const member of members) {
      const known = this.peers.get(member.client_id);
      if (known) {
        known.update(member);
        known.renegotiate(true);
      } else this.addPeer(member, true);
    }
    // After a restart of the server a missing peer may only reconnect later, and its call goes on meanwhile.
    for (const [id, peer] of this.peers) {
      if (!this.present.has(id) && peer.connection.connectionState !== 'connected') this.removePeer(id);
    }
    if (!this.hasJoined) this.pendingTimer = setTimeout(() => this.emitPending());
    clearTimeout(this.missingTimer);
    this.missingTimer = setTimeout(() => {
      for (const id of this.peers.keys()) if (!this.present.has(id)) this.removePeer(id);
    }, MISSING_PEER_TIMEOUT);
  }

  private handleFrame(frame: any): void {
    this.emitPending();
    const peer = this.peers.get(frame.from ?? frame.client_id);
    switch (frame.type) {
      case 'user_joined':
        this.present.add(frame.client_id);
        if (peer) {
          peer.update(frame);
          peer.renegotiate(false);
        } else this.addPeer(frame, false);
        break;
      case 'user_left':
        this.present.delete(frame.client_id);
        this.removePeer(frame.client_id);
        break;
      case 'peer_state':
        peer?.emitState(frame.state);
        break;
      case 'message':
        peer?.emitMessage(frame.data);
        break;
      case 'server_message':
        this.emit('server-message', { data: frame.data });
        break;
      case 'offer':
      case 'answer':
        peer?.handleSignal(frame.type, frame[frame.type]);
        break;
      case 'ice_candidate':
        peer?.handleSignal(frame.type, frame.candidate || null);
    }
  }

  private addPeer(member: Member, offersFirst: boolean): void {
    const peer = new Peer(this, member, offersFirst);
    this.peers.set(peer.id, peer);
    for (const name of ['track', 'track-removed', 'channel', 'message'] as const) peer.on(name, (event: any) => this.emit(name, event));
    peer.on('state', (event) => this.emit('peer', event));
    this.emitLater(() => this.emit('peer-joined', { peer, existing: offersFirst }));
  }

  private removePeer(id: string): void {
    const peer = this.peers.get(id);
    if (!peer) return;
    this.emitPending();
    this.peers.delete(id);
    peer.dispose();
    this.emit('peer-left', { peer });
  }

  private removeAllPeers(): void {
    clearTimeout(this.missingTimer);
    for (const id of [...this.peers.keys()]) this.removePeer(id);
  }
}

/**
 * Joins a room and resolves with the session.
 *
 * While the server cannot be reached, `connect` keeps trying.
 *
 * @throws SignalError if the server refuses the client.
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
    const removals = [
      session.on('state', ({ state }) => state === 'connected' && settle(() => resolve(session))),
      session.on('error', ({ error }) => error.fatal && settle(() => reject(error))),
    ];
    const settle = (outcome: () => void) => {
      removals.forEach((remove) => remove());
      outcome();
    };
  });
}

import { Emitter } from './events.js';
import type { Session } from './index.js';
import type { Member } from './signal.js';

/** How media goes: `host` on the same network, `srflx` through a NAT, `relay` by TURN. */
export type Path = 'host' | 'srflx' | 'relay';

export interface PeerStats {
  /** Undefined while nothing is connected. */
  path?: Path;
  /** Round-trip time in milliseconds. */
  rtt?: number;
  /** All that went to it and came from it; in Firefox, since the last ICE restart. */
  bytesSent: number;
  bytesReceived: number;
}

export interface PeerEvents {
  track: { peer: Peer; track: MediaStreamTrack; streams: readonly MediaStream[] };
  channel: { peer: Peer; channel: RTCDataChannel };
  /** Of its RTCPeerConnection, or `reconnecting` while the server has lost it. */
  state: { peer: Peer; state: RTCPeerConnectionState | 'reconnecting' };
  message: { peer: Peer; data: unknown };
}

/** A description as we send it: `pc` tells one RTCPeerConnection from the next of the same peer. */
type Description = RTCSessionDescriptionInit & { pc?: string };

/** How long somebody who was there waits for the newcomer's offer. */
const CALLED_WITHIN = 500;
/** How long ICE may take to begin, once there are descriptions. */
const BEGUN_WITHIN = 1_500;
const RESTART_AFTER = 3_000;
const MOST_RESTARTS = 5;

/** Stands in where there is no WebRTC. */
class NoConnection {
  connectionState = 'closed';
  signalingState = 'closed';
  async getStats(): Promise<Map<string, any>> {
    return new Map();
  }
  addTrack(): void {}
  createDataChannel(): never {
    throw new TypeError('There is no RTCPeerConnection here: hand one in to connect()');
  }
  setConfiguration(): void {}
  restartIce(): void {}
  close(): void {}
}

/** Another member, and the RTCPeerConnection to it. */
export class Peer extends Emitter<PeerEvents> {
  readonly id: string;
  readonly username: string;
  /** Whether we give way to it when both offer at once. */
  polite: boolean;
  /** Replaced when the peer begins anew. */
  connection!: RTCPeerConnection;

  private key!: string;
  private theirKey: string | undefined;
  private isOffering = false;
  private isIgnoring = false;
  private early: (RTCIceCandidateInit | null)[] = [];
  private senders = new Map<MediaStreamTrack, RTCRtpSender>();
  private work: Promise<void> = Promise.resolve();
  private restarts = 0;
  private restart: ReturnType<typeof setTimeout> | undefined;
  private begins: ReturnType<typeof setTimeout> | undefined;
  private isReported = false;
  private began = Date.now();

  /** @internal */
  constructor(
    private session: Session,
    member: Member,
    /** Whether it falls to us to offer first, for we came later. */
    private isCaller: boolean,
  ) {
    super();
    this.id = member.client_id;
    this.username = member.username;
    this.polite = member.polite;
    this.begin();
  }

  /** A data channel to this peer; it hears of it by `channel`. */
  createDataChannel(label: string, options?: RTCDataChannelInit): RTCDataChannel {
    return this.connection.createDataChannel(label, options);
  }

  /** Says something to this peer alone. */
  send(data: unknown): void {
    this.session.send(data, { to: this.id });
  }

  /** How the media goes at the moment. */
  async stats(): Promise<PeerStats> {
    const report = await this.connection.getStats();
    const found: PeerStats = { bytesSent: 0, bytesReceived: 0 };
    const all: any[] = [];
    report.forEach((entry) => all.push(entry));
    const of = (type: string) => all.filter((entry) => entry.type === type);
    const [transports, pairs] = [of('transport'), of('candidate-pair')];
    // Firefox counts by pair alone, and its older versions have no transports.
    const counted = transports.some(({ bytesSent }) => bytesSent >= 0) ? transports : pairs;
    for (const { bytesSent = 0, bytesReceived = 0 } of counted) {
      found.bytesSent += bytesSent;
      found.bytesReceived += bytesReceived;
    }
    // Pairs that were in use before stay nominated. One that is in use may be checked anew all the while, and is then in progress.
    const selected = transports.map(({ selectedCandidatePairId }) => selectedCandidatePairId);
    const pair = pairs.find(({ id, state, selected: is }) => (is === undefined ? selected.includes(id) : is && state === 'succeeded'));
    if (!pair) return found;
    const types = [pair.localCandidateId, pair.remoteCandidateId].map((id) => {
      const { candidateType, address, port } = report.get(id) ?? {};
      if (candidateType !== 'prflx') return candidateType;
      // In Firefox, what sent before its candidate came stays peer reflexive, even a relay. The description knows better.
      const sdp = this.connection.remoteDescription?.sdp ?? '';
      return new RegExp(` ${address} ${port} typ (\\w+)`).exec(sdp)?.[1] ?? candidateType;
    });
    found.path = types.includes('relay') ? 'relay' : types.some((type) => /flx$/.test(type)) ? 'srflx' : 'host';
    // Where the pair's is not measured, RTCP may have.
    const seconds = pair.currentRoundTripTime ?? of('remote-inbound-rtp')[0]?.roundTripTime;
    if (seconds >= 0) found.rtt = Math.round(seconds * 1000);
    return found;
  }

  /** Looks for a new way for the media, and keeps the old one until there is one. */
  restartIce(): void {
    this.connection.restartIce();
  }

  /** @internal */
  publish(track: MediaStreamTrack, stream: MediaStream): void {
    if (!this.senders.has(track)) this.senders.set(track, this.connection.addTrack(track, stream));
  }

  /** @internal */
  unpublish(track: MediaStreamTrack): void {
    const sender = this.senders.get(track);
    if (sender && this.connection.signalingState !== 'closed') this.connection.removeTrack(sender);
    this.senders.delete(track);
  }

  /** @internal */
  async replaceTrack(old: MediaStreamTrack, next: MediaStreamTrack): Promise<void> {
    const sender = this.senders.get(old);
    if (!sender) return;
    this.senders.delete(old);
    this.senders.set(next, sender);
    await sender.replaceTrack(next);
  }

  /** @internal Descriptions and candidates, one after the other. */
  hears(kind: 'offer' | 'answer' | 'ice_candidate', payload: any): void {
    if (!this.session.RTCPeerConnection) return;
    this.work = this.work.then(() =>
      (kind === 'ice_candidate' ? this.candidate(payload) : this.description(payload)).catch((error) =>
        this.session.fails(this, error),
      ),
    );
  }

  /** @internal */
  says(message: Partial<{ data: unknown; state: 'reconnecting' | 'connected' }>): void {
    if ('data' in message) this.emit('message', { peer: this, data: message.data });
    else this.emit('state', { peer: this, state: message.state! });
  }

  /** @internal New servers; what goes over an old relay has to move. */
  async reconfigures(configuration: RTCConfiguration): Promise<void> {
    this.connection.setConfiguration(configuration);
    const { path } = await this.stats();
    // Firefox may not say by which pair a call goes: then that may be a relay.
    if (!this.polite && (path === 'relay' || (!path && this.connection.connectionState === 'connected'))) this.restartIce();
  }

  /** @internal We are back; the way may be another. */
  mends(): void {
    const state = this.connection.connectionState;
    if (!this.polite && state !== 'connected' && state !== 'new') this.restartIce();
  }

  /** @internal We sat down anew: the peer may have lost its side, and we ask. */
  asksAgain(): void {
    if (this.connection.remoteDescription) this.restartIce();
  }

  /** @internal */
  ends(): void {
    clearTimeout(this.restart);
    clearTimeout(this.begins);
    this.connection.close();
    this.finish();
  }

  private begin(): void {
    const Class = this.session.RTCPeerConnection ?? (NoConnection as unknown as typeof RTCPeerConnection);
    const pc = (this.connection = new Class(this.session.configuration));
    this.key = Math.random().toString(36).slice(2, 10);
    this.isOffering = this.isIgnoring = false;
    this.early = [];
    this.senders.clear();
    const send = (type: string, rest: object) => this.session.signal.say({ type, to: this.id, ...rest });
    let waits = !this.isCaller;
    pc.onnegotiationneeded = async () => {
      if (waits) {
        // The newcomer's offer is on its way, most likely, and our tracks go into the answer.
        waits = false;
        await new Promise((resolve) => setTimeout(resolve, CALLED_WITHIN));
        if (pc !== this.connection || pc.remoteDescription || pc.signalingState !== 'stable') return;
      }
      try {
        this.isOffering = true;
        await pc.setLocalDescription();
        this.describe();
      } catch (error) {
        if (pc === this.connection) this.session.fails(this, error);
      } finally {
        this.isOffering = false;
      }
    };
    pc.onicecandidate = ({ candidate }) => send('ice_candidate', { candidate });
    pc.ontrack = ({ track, streams }) => this.emit('track', { peer: this, track, streams });
    pc.ondatachannel = ({ channel }) => this.emit('channel', { peer: this, channel });
    pc.onconnectionstatechange = () => this.changes();
    pc.onsignalingstatechange = () => {
      clearTimeout(this.begins);
      if (pc.signalingState !== 'stable' || pc.connectionState !== 'new') return;
      // Chromium may gather nothing after a rollback of its first offer: then it has to be asked again.
      this.begins = setTimeout(() => pc.connectionState === 'new' && pc.restartIce(), BEGUN_WITHIN);
    };
    for (const stream of this.session.streams) for (const track of stream.getTracks()) this.publish(track, stream);
  }

  private describe(): void {
    const { type, sdp } = this.connection.localDescription!;
    const kind = type as 'offer' | 'answer';
    this.session.signal.say({ type: kind, to: this.id, [kind]: { type, sdp, pc: this.key } });
  }

  /** Perfect negotiation (W3C WebRTC, section 10.7). */
  private async description(description: Description): Promise<void> {
    const { pc: theirKey = '' } = description; // a client that is not this library says none
    if (this.theirKey !== undefined && theirKey !== this.theirKey) {
      // Its connection is another: ours belonged to the one before.
      this.connection.close();
      this.begin();
      if (description.type === 'answer') {
        this.theirKey = undefined;
        return;
      }
    }
    const pc = this.connection;
    const isOffer = description.type === 'offer';
    const collides = isOffer && (this.isOffering || pc.signalingState !== 'stable');
    this.isIgnoring = !this.polite && collides;
    if (this.isIgnoring) return;
    if (!isOffer && pc.signalingState !== 'have-local-offer') return;
    await pc.setRemoteDescription({ type: description.type, sdp: description.sdp });
    this.theirKey = theirKey;
    for (const candidate of this.early.splice(0)) await this.candidate(candidate);
    if (isOffer) {
      await pc.setLocalDescription();
      this.describe();
    }
  }

  private async candidate(candidate: RTCIceCandidateInit | null): Promise<void> {
    const pc = this.connection;
    if (!pc.remoteDescription) {
      this.early.push(candidate);
      return;
    }
    try {
      await pc.addIceCandidate(candidate ?? undefined);
    } catch (error) {
      // One of an offer that we ignored, or of a description that has been rolled back.
      if (!this.isIgnoring && !(candidate?.usernameFragment && this.isOfAnother(candidate.usernameFragment))) throw error;
    }
  }

  private isOfAnother(ufrag: string): boolean {
    return !this.connection.remoteDescription?.sdp.includes(`a=ice-ufrag:${ufrag}`);
  }

  private changes(): void {
    const state = this.connection.connectionState;
    clearTimeout(this.restart);
    if (state === 'connected') {
      this.restarts = 0;
      void this.report('connected');
    }
    const wait = state === 'failed' ? 0 : RESTART_AFTER;
    if ((state === 'failed' || state === 'disconnected') && this.restarts < MOST_RESTARTS) {
      // Both see it; one is enough, and the other helps where that one is away.
      this.restart = setTimeout(() => {
        this.restarts++;
        this.restartIce();
      }, this.polite ? wait + 2 * RESTART_AFTER : wait);
    } else if (state === 'failed') void this.report('failed');
    this.emit('state', { peer: this, state });
  }

  private async report(outcome: 'connected' | 'failed'): Promise<void> {
    if (this.isReported) return;
    this.isReported = true;
    const ms = Date.now() - this.began;
    const { path } = await this.stats();
    this.session.signal.mention({ type: 'call_report', peer: this.id, outcome, ms, path });
  }
}

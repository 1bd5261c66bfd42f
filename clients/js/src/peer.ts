import { Emitter } from './events.js';
import type { Member, Membership } from './membership.js';
import { readStats, type PeerStats } from './stats.js';

export interface PeerEvents {
  track: { peer: Peer; track: MediaStreamTrack; streams: readonly MediaStream[] };
  channel: { peer: Peer; channel: RTCDataChannel };
  /** The state of the RTCPeerConnection, or `reconnecting` while the peer has no connection to the server. */
  state: { peer: Peer; state: RTCPeerConnectionState | 'reconnecting' };
  message: { peer: Peer; data: unknown };
}

/** @internal What a peer needs from its session. */
export interface PeerContext {
  readonly RTCPeerConnection: typeof RTCPeerConnection | undefined;
  readonly configuration: RTCConfiguration;
  /** The streams that are published to every peer. */
  readonly streams: ReadonlySet<MediaStream>;
  readonly membership: Pick<Membership, 'send' | 'sendUnreliably'>;
  reportMediaError(peer: Peer, error: unknown): void;
}

/** A description as this client sends it. `pc` identifies the RTCPeerConnection among the successive ones of one peer. */
type Description = RTCSessionDescriptionInit & { pc?: string };

// All in milliseconds.
/** How long a member that joined earlier waits for the offer of a new one. */
const OFFER_TIMEOUT = 500;
/** How long ICE may stay in `new` once both descriptions are set. */
const ICE_START_TIMEOUT = 1_500;
/** How long a disconnected connection may recover on its own. */
const RESTART_DELAY = 3_000;

const MAX_RESTARTS = 5;

/** Stands in for RTCPeerConnection where there is no WebRTC. */
class NoConnection {
  connectionState = 'closed';
  signalingState = 'closed';
  async getStats(): Promise<Map<string, any>> {
    return new Map();
  }
  addTrack(): void {}
  createDataChannel(): never {
    throw new TypeError('No RTCPeerConnection is available: pass a class to connect()');
  }
  setConfiguration(): void {}
  restartIce(): void {}
  close(): void {}
}

/** Another member of the room, and the RTCPeerConnection to it. */
export class Peer extends Emitter<PeerEvents> {
  readonly id: string;
  readonly username: string;
  /** Whether this client is the polite one of the pair: on an offer collision it accepts the other's offer. */
  polite: boolean;
  /** Replaced when the peer starts a new RTCPeerConnection. */
  connection!: RTCPeerConnection;

  private localKey!: string;
  private remoteKey: string | undefined;
  private isOffering = false;
  private isIgnoringOffer = false;
  /** Candidates that arrived before a remote description. */
  private earlyCandidates: (RTCIceCandidateInit | null)[] = [];
  private senders = new Map<MediaStreamTrack, RTCRtpSender>();
  private work: Promise<void> = Promise.resolve();
  private restarts = 0;
  private restartTimer: ReturnType<typeof setTimeout> | undefined;
  private startTimer: ReturnType<typeof setTimeout> | undefined;
  private isReported = false;
  private createdAt = Date.now();

  /** @internal */
  constructor(
    private context: PeerContext,
    member: Member,
    /** Whether this client makes the first offer: it joined later than the peer. */
    private offersFirst: boolean,
  ) {
    super();
    this.id = member.client_id;
    this.username = member.username;
    this.polite = member.polite;
    this.createConnection();
  }

  /** Creates a data channel to this peer, which receives it as a `channel` event. */
  createDataChannel(label: string, options?: RTCDataChannelInit): RTCDataChannel {
    return this.connection.createDataChannel(label, options);
  }

  /** Sends any JSON value to this peer alone, through the server. */
  send(data: unknown): void {
    this.context.membership.send({ type: 'message', data, to: this.id });
  }

  /** The path of the media at the moment, its round-trip time and the bytes so far. */
  stats(): Promise<PeerStats> {
    return readStats(this.connection);
  }

  /** Restarts ICE: searches for a new path, and keeps the old one until a new one is found. */
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

  /** @internal Handles descriptions and candidates one after the other. */
  handleSignal(kind: 'offer' | 'answer' | 'ice_candidate', payload: any): void {
    if (!this.context.RTCPeerConnection) return;
    this.work = this.work.then(() =>
      (kind === 'ice_candidate' ? this.addCandidate(payload) : this.applyDescription(payload)).catch((error) =>
        this.context.reportMediaError(this, error),
      ),
    );
  }

  /** @internal */
  emitMessage(data: unknown): void {
    this.emit('message', { peer: this, data });
  }

  /** @internal */
  emitState(state: 'reconnecting' | 'connected'): void {
    this.emit('state', { peer: this, state });
  }

  /** @internal Sets new ICE servers, and moves a connection that uses an old TURN allocation. */
  async updateIceServers(configuration: RTCConfiguration): Promise<void> {
    this.connection.setConfiguration(configuration);
    const { path } = await this.stats();
    // Firefox may not report the pair in use; the connection may then be relayed.
    if (!this.polite && (path === 'relay' || (!path && this.connection.connectionState === 'connected'))) this.restartIce();
  }

  /** @internal After a resume the network may be another one, so a connection that is not connected restarts ICE. */
  recover(): void {
    const state = this.connection.connectionState;
    if (!this.polite && state !== 'connected' && state !== 'new') this.restartIce();
  }

  /** @internal After a new join the peer may have replaced its connection; a new offer finds out. */
  renegotiate(): void {
    if (this.connection.remoteDescription) this.restartIce();
  }

  /** @internal */
  dispose(): void {
    clearTimeout(this.restartTimer);
    clearTimeout(this.startTimer);
    this.connection.close();
    this.finish();
  }

  private createConnection(): void {
    const Class = this.context.RTCPeerConnection ?? (NoConnection as unknown as typeof RTCPeerConnection);
    const pc = (this.connection = new Class(this.context.configuration));
    this.localKey = Math.random().toString(36).slice(2, 10);
    this.isOffering = this.isIgnoringOffer = false;
    this.earlyCandidates = [];
    this.senders.clear();
    let awaitsOffer = !this.offersFirst;
    pc.onnegotiationneeded = async () => {
      if (awaitsOffer) {
        // The new member most likely sends an offer at once; the answer to it then contains the local tracks.
        awaitsOffer = false;
        await new Promise((resolve) => setTimeout(resolve, OFFER_TIMEOUT));
        if (pc !== this.connection || pc.remoteDescription || pc.signalingState !== 'stable') return;
      }
      try {
        this.isOffering = true;
        await pc.setLocalDescription();
        this.sendDescription();
      } catch (error) {
        if (pc === this.connection) this.context.reportMediaError(this, error);
      } finally {
        this.isOffering = false;
      }
    };
    pc.onicecandidate = ({ candidate }) => this.context.membership.send({ type: 'ice_candidate', to: this.id, candidate });
    pc.ontrack = ({ track, streams }) => this.emit('track', { peer: this, track, streams });
    pc.ondatachannel = ({ channel }) => this.emit('channel', { peer: this, channel });
    pc.onconnectionstatechange = () => this.handleConnectionState();
    pc.onsignalingstatechange = () => {
      clearTimeout(this.startTimer);
      if (pc.signalingState !== 'stable' || pc.connectionState !== 'new') return;
      // After a rollback of its first offer Chromium may gather no candidates; an ICE restart makes it gather.
      this.startTimer = setTimeout(() => pc.connectionState === 'new' && pc.restartIce(), ICE_START_TIMEOUT);
    };
    for (const stream of this.context.streams) for (const track of stream.getTracks()) this.publish(track, stream);
  }

  private sendDescription(): void {
    const { type, sdp } = this.connection.localDescription!;
    const kind = type as 'offer' | 'answer';
    this.context.membership.send({ type: kind, to: this.id, [kind]: { type, sdp, pc: this.localKey } });
  }

  /** Perfect negotiation (W3C WebRTC, section 10.7). */
  private async applyDescription(description: Description): Promise<void> {
    const { pc: remoteKey = '' } = description; // other client libraries send no key
    if (this.remoteKey !== undefined && remoteKey !== this.remoteKey) {
      // The peer has replaced its connection, so this one has no other end any more.
      this.connection.close();
      this.createConnection();
      if (description.type === 'answer') {
        this.remoteKey = undefined;
        return;
      }
    }
    const pc = this.connection;
    const isOffer = description.type === 'offer';
    const collides = isOffer && (this.isOffering || pc.signalingState !== 'stable');
    this.isIgnoringOffer = !this.polite && collides;
    if (this.isIgnoringOffer) return;
    if (!isOffer && pc.signalingState !== 'have-local-offer') return;
    await pc.setRemoteDescription({ type: description.type, sdp: description.sdp });
    this.remoteKey = remoteKey;
    for (const candidate of this.earlyCandidates.splice(0)) await this.addCandidate(candidate);
    if (isOffer) {
      await pc.setLocalDescription();
      this.sendDescription();
    }
  }

  private async addCandidate(candidate: RTCIceCandidateInit | null): Promise<void> {
    const pc = this.connection;
    if (!pc.remoteDescription) {
      this.earlyCandidates.push(candidate);
      return;
    }
    try {
      await pc.addIceCandidate(candidate ?? undefined);
    } catch (error) {
      // Candidates of an ignored offer or of a description that was rolled back fail, and that is expected.
      const ufrag = candidate?.usernameFragment;
      if (!this.isIgnoringOffer && (!ufrag || pc.remoteDescription?.sdp.includes(`a=ice-ufrag:${ufrag}`))) throw error;
    }
  }

  private handleConnectionState(): void {
    const state = this.connection.connectionState;
    clearTimeout(this.restartTimer);
    if (state === 'connected') {
      this.restarts = 0;
      void this.reportOutcome('connected');
    }
    const delay = state === 'failed' ? 0 : RESTART_DELAY;
    if ((state === 'failed' || state === 'disconnected') && this.restarts < MAX_RESTARTS) {
      // Both ends notice, and one restart is enough. The polite one waits longer and restarts if the other is offline.
      this.restartTimer = setTimeout(() => {
        this.restarts++;
        this.restartIce();
      }, this.polite ? delay + 2 * RESTART_DELAY : delay);
    } else if (state === 'failed') void this.reportOutcome('failed');
    this.emit('state', { peer: this, state });
  }

  /** Reports the first outcome of the call to the server, for its metrics. */
  private async reportOutcome(outcome: 'connected' | 'failed'): Promise<void> {
    if (this.isReported) return;
    this.isReported = true;
    const ms = Date.now() - this.createdAt;
    const { path } = await this.stats();
    this.context.membership.sendUnreliably({ type: 'call_report', peer: this.id, outcome, ms, path });
  }
}

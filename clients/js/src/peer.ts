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

/**
 * A description as this client sends it. `pc` identifies the RTCPeerConnection among the successive ones of one peer.
 * `n` numbers the offers of a client, and an answer repeats the number of its offer.
 */
type Description = RTCSessionDescriptionInit & { pc?: string; n?: number };

// All in milliseconds.
/** How long a member that joined earlier waits for the offer of a new one. */
const OFFER_TIMEOUT = 500;
/** How long ICE may stay in `new` once both descriptions are set. */
const ICE_START_TIMEOUT = 1_500;
/** How long a disconnected connection may recover on its own. */
const RESTART_DELAY = 3_000;

const MAX_RESTARTS = 5;

const ufragOf = (description?: RTCSessionDescriptionInit | null): string | undefined =>
  /a=ice-ufrag:(\S+)/.exec(description?.sdp ?? '')?.[1];

/**
 * An offer to restart ICE states the DTLS role that this client has. Otherwise Firefox answers it with the role that it
 * prefers, and Chromium refuses an answer that changes the roles.
 */
function keepRole({ currentLocalDescription: local, currentRemoteDescription: remote }: RTCPeerConnection, sdp: string): string {
  if (!local || !remote || ufragOf(local) === ufragOf({ type: 'offer', sdp })) return sdp;
  const answered = local.type === 'answer';
  const role = /a=setup:(active|passive)/.exec((answered ? local : remote).sdp)?.[1];
  const own = answered ? role : role === 'active' ? 'passive' : 'active';
  return role ? sdp.replace(/a=setup:actpass/g, `a=setup:${own}`) : sdp;
}

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
  /** The offer that was sent and is not answered yet. */
  private offer: Description | undefined;
  private offers = 0;
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
    this.enqueue(() => (kind === 'ice_candidate' ? this.addCandidate(payload) : this.applyDescription(payload)));
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

  /**
   * @internal This client or the peer has joined anew, so an unanswered offer may be lost. After a join of this client
   * (`restart`) the peer may have replaced its connection as well; a new offer finds out.
   */
  renegotiate(restart: boolean): void {
    const wasOffering = Boolean(this.offer);
    this.offer = undefined;
    if (restart && this.connection.remoteDescription) this.restartIce();
    if (wasOffering) this.negotiate();
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
    this.offer = undefined;
    this.isIgnoringOffer = false;
    this.earlyCandidates = [];
    this.senders.clear();
    let awaitsOffer = !this.offersFirst;
    pc.onnegotiationneeded = () => {
      // The new member most likely sends an offer at once; the answer to it then contains the local tracks, and the
      // browser fires this event again if it does not contain everything.
      if (awaitsOffer && !pc.remoteDescription) setTimeout(() => pc.remoteDescription || this.negotiate(pc), OFFER_TIMEOUT);
      else this.negotiate(pc);
      awaitsOffer = false;
    };
    pc.onicecandidate = ({ candidate }) => this.context.membership.send({ type: 'ice_candidate', to: this.id, candidate });
    pc.ontrack = ({ track, streams }) => this.emit('track', { peer: this, track, streams });
    pc.ondatachannel = ({ channel }) => this.emit('channel', { peer: this, channel });
    pc.onconnectionstatechange = () => this.handleConnectionState();
    pc.onsignalingstatechange = () => {
      clearTimeout(this.startTimer);
      if (pc.signalingState !== 'stable' || pc.connectionState !== 'new') return;
      // A first offer that was rolled back for an older client: an ICE restart makes Chromium gather.
      this.startTimer = setTimeout(() => pc.connectionState === 'new' && pc.restartIce(), ICE_START_TIMEOUT);
    };
    for (const stream of this.context.streams) for (const track of stream.getTracks()) this.publish(track, stream);
  }

  /** Runs `task` after the tasks before it, so that each begins and ends in the signaling state `stable`. */
  private enqueue(task: () => Promise<void>): void {
    this.work = this.work.then(task).catch((error) => this.context.reportMediaError(this, error));
  }

  /**
   * Whether the offer of this client prevails when offers cross: for the first description of a connection the offer of
   * the member that joined later, which is the polite one; after that, the offer of the other.
   *
   * The offer that prevails is set at once, so that candidates are gathered early. The other is set only together with its
   * answer, and dropped where offers cross. So nothing is rolled back: after a rollback Chromium leaves the remote tracks
   * `muted` for good, although they play, and may gather no candidates.
   */
  private wins(): boolean {
    return this.polite !== Boolean(this.connection.remoteDescription);
  }

  /** Sends an offer, unless one is not answered yet: the browser asks again after the answer if it does not suffice. */
  private negotiate(pc = this.connection): void {
    this.enqueue(async () => {
      if (pc !== this.connection || this.offer) return;
      const { sdp } = await pc.createOffer();
      this.offer = { type: 'offer', sdp, n: ++this.offers };
      const sent = { ...this.offer, sdp: keepRole(pc, sdp!) };
      if (this.wins()) await pc.setLocalDescription({ type: 'offer', sdp });
      this.sendDescription(sent);
    });
  }

  private sendDescription({ type, sdp, n }: Description): void {
    this.context.membership.send({ type, to: this.id, [type]: { type, sdp, pc: this.localKey, n } });
  }

  /** Perfect negotiation (W3C WebRTC, section 10.7), with other roles for the first offers and without rollbacks. */
  private async applyDescription(description: Description): Promise<void> {
    const { pc: remoteKey = '', type, sdp, n } = description; // other client libraries send no key and no number
    if (this.remoteKey !== undefined && remoteKey !== this.remoteKey) {
      // The peer has replaced its connection, so this one has no other end any more.
      this.connection.close();
      this.createConnection();
      if (type === 'answer') {
        this.remoteKey = undefined;
        return;
      }
    }
    const pc = this.connection;
    const isOffer = type === 'offer';
    const { offer } = this;
    // Clients that do not number their offers roll back: between those and this one the polite one always yields.
    this.isIgnoringOffer = isOffer && Boolean(offer) && (n === undefined ? !this.polite : this.wins());
    if (this.isIgnoringOffer || (!isOffer && (!offer || (n ?? offer.n) !== offer.n))) return;
    this.offer = undefined;
    if (!isOffer && pc.signalingState === 'stable') await pc.setLocalDescription({ type: 'offer', sdp: offer!.sdp });
    try {
      await pc.setRemoteDescription({ type, sdp });
    } catch (error) {
      if (!isOffer) await pc.setLocalDescription({ type: 'rollback' }).catch(() => {});
      throw error;
    }
    this.remoteKey = remoteKey;
    for (const candidate of this.earlyCandidates.splice(0)) await this.addCandidate(candidate);
    if (isOffer) {
      await pc.setLocalDescription();
      this.sendDescription({ type: 'answer', sdp: pc.localDescription!.sdp, n });
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

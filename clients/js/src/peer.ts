// Another member of the room: its RTCPeerConnection, and the negotiation of its descriptions. The negotiation is one state machine whose
// steps share their state, so this file is longer than others.

import { Emitter } from './events.js';
import type { Member, Membership } from './membership.js';
import { readStats, type PeerStats } from './stats.js';

export interface RemoteTrack {
  peer: Peer;
  track: MediaStreamTrack;
  streams: readonly MediaStream[];
  /** What the peer has passed to `publish` with the stream. */
  label?: string;
}

export interface PeerEvents {
  track: RemoteTrack;
  'track-removed': RemoteTrack;
  channel: { peer: Peer; channel: RTCDataChannel };
  /** The state of the RTCPeerConnection, or `reconnecting` while the peer has no connection to the server. */
  state: { peer: Peer; state: RTCPeerConnectionState | 'reconnecting' };
  message: { peer: Peer; data: unknown };
}

/** @internal What a peer needs from its session. */
export interface PeerContext {
  readonly RTCPeerConnection: typeof RTCPeerConnection | undefined;
  readonly configuration: RTCConfiguration;
  /** The streams that are published to every peer, with their labels. */
  readonly streams: ReadonlyMap<MediaStream, string | undefined>;
  readonly membership: Pick<Membership, 'send' | 'sendUnreliably' | 'state'>;
  reportMediaError(peer: Peer, error: unknown): void;
}

/**
 * A description as this client sends it. `pc` identifies the RTCPeerConnection among the successive ones of one peer, and
 * `peer` the one of the receiver that it is meant for, if the sender knows it. `n` numbers the offers of a client, and an
 * answer repeats the number of its offer. `labels` are those of the published streams, by stream id.
 */
type Description = { type: 'offer' | 'answer'; sdp?: string; pc?: string; peer?: string; n?: number; labels?: Record<string, string> };

// All in milliseconds.
/** How long a member that joined earlier waits for the offer of a new one. */
const OFFER_TIMEOUT = 500;
/** How long ICE may stay in `new` once both descriptions are set. */
const ICE_START_TIMEOUT = 1_500;
/** How long a disconnected connection may recover on its own. */
const RESTART_DELAY = 3_000;
/** How long a connected one may search for a new path after an ICE restart, which may be stuck. */
const SEARCH_DELAY = 5_000;
/** How long a description of an ICE restart waits for its first candidate. */
const CANDIDATE_TIMEOUT = 300;
/** How long a failed one waits for the first ICE restart. */
const FAILED_DELAY = 500;
/** The pause after an ICE restart that did not help is twice as long as the one before, up to this. */
const MAX_RESTART_DELAY = 30_000;
/** How long a DTLS handshake may take once ICE is connected; three times as long on the polite side, as one replacement is enough. */
const HANDSHAKE_TIMEOUT = 10_000;

/** How long an offer may stay unanswered while both members are connected to the server. */
const ANSWER_TIMEOUT = 30_000;

/** After so many ICE restarts in a row the call counts as failed. The restarts go on: a TURN server or a network may come back. */
const MAX_RESTARTS = 5;
/** After so many offers without an answer the peer is asked no more, until it sends a description. */
const MAX_UNANSWERED = 3;
/** How often a connection is replaced because a description does not fit it. */
const MAX_REPAIRS = 5;

/**
 * An offer without header extensions whose number has another meaning in it. Chromium (156) remembers the numbers of an offer
 * that it has made and not set; if the peer has chosen others since, it makes an offer that it refuses to set.
 */
function withoutCollisions(sdp = ''): string {
  const meanings: Record<string, string> = {};
  return sdp.replace(/^a=extmap:(\d+)\S* (\S+).*\r\n/gm, (line, id, meaning) => ((meanings[id] ??= meaning) === meaning ? line : ''));
}

/**
 * A later offer states the DTLS role that this client has. Otherwise Firefox answers an ICE restart with the role that it
 * prefers, and Chromium refuses an answer that changes the roles. Where an answer was lost, any offer is a restart for the peer.
 */
function keepRole({ currentLocalDescription: local, currentRemoteDescription: remote }: RTCPeerConnection, sdp: string): string {
  if (!local || !remote) return sdp;
  const answered = local.type === 'answer';
  const role = /a=setup:(active|passive)/.exec((answered ? local : remote).sdp)?.[1];
  const own = answered ? role : role === 'active' ? 'passive' : 'active';
  return role ? sdp.replace(/a=setup:actpass/g, `a=setup:${own}`) : sdp;
}

/** Whether ICE searches for a path. Firefox (153) says `connected` meanwhile if it has had another one, also where no media arrives any more. */
async function isSearching(pc: RTCPeerConnection): Promise<boolean> {
  if (pc.connectionState !== 'connected') return true;
  let isSearching = false;
  (await pc.getStats()).forEach(({ iceState }) => { isSearching ||= iceState === 'checking'; });
  return isSearching;
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
    throw new TypeError('there is no RTCPeerConnection class: pass one to connect()');
  }
  setConfiguration(): void {}
  restartIce(): void {}
  close(): void {}
}

/** Another member of the room, and the RTCPeerConnection to it. */
export class Peer extends Emitter<PeerEvents> {
  readonly id: string;
  readonly username: string;
  /** The display name that the peer's token gives it; undefined if it gives none. */
  name: string | undefined;
  /** Whether this client is the polite one of the pair: on an offer collision it accepts the other's offer. */
  polite!: boolean;
  /** Replaced when the peer starts a new RTCPeerConnection. */
  connection!: RTCPeerConnection;
  /** What this peer publishes at the moment. */
  readonly tracks = new Map<MediaStreamTrack, RemoteTrack>();

  private member!: Member;
  private labels: Record<string, string> = {};
  private localKey!: string;
  private remoteKey: string | undefined;
  /** The offer that was sent and is not answered yet. */
  private offer: Description | undefined;
  /** Whether that offer is set as the local description. */
  private isOfferSet = false;
  private offers = 0;
  /** The number of the newest offer of the peer's connection. */
  private newest = 0;
  private unanswered = 0;
  private repairs = 0;
  /** Whether the peer numbers its offers, and thus understands an answer without a description. */
  private isNumbered = false;
  private answerTimer: ReturnType<typeof setTimeout> | undefined;
  private isDetached = false;
  private isIgnoringOffer = false;
  /** Called for a candidate instead of sending it: the next description contains it. */
  private onCandidate: (() => void) | undefined;
  /** Candidates that arrived before a remote description. */
  private candidates: (RTCIceCandidateInit | null)[] = [];
  /** Ends the calls of `stats` that are under way when the connection is closed: Firefox (153) then never answers them. */
  private statsCalls = new Set<(stats: PeerStats) => void>();
  private senders = new Map<MediaStreamTrack, RTCRtpSender>();
  /** Senders whose track is unpublished; their media sections are used again. */
  private idleSenders = new Set<RTCRtpSender>();
  private work: Promise<void> = Promise.resolve();
  private restarts = 0;
  private restartTimer: ReturnType<typeof setTimeout> | undefined;
  private handshakeTimer: ReturnType<typeof setTimeout> | undefined;
  /** Whether the connection has been `connected`. */
  private isUp = false;
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
    this.update(member);
    this.createConnection();
  }

  /** @internal The member has joined anew: roles that the server has told both sides, and perhaps another token. */
  update(member: Member): void {
    this.name = member.name;
    this.member = member;
    // Both ends of a connection keep their roles: with other ones, an end that has set an offer might have to take it back.
    if (!this.isNumbered || !this.connection.remoteDescription) this.polite = member.polite;
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
    // Not Promise.race: a promise that lives as long as the connection would keep something of each call.
    return new Promise((done, fail) => {
      this.statsCalls.add(done);
      readStats(this.connection).then(done, fail).finally(() => this.statsCalls.delete(done));
    });
  }

  /** Restarts ICE: searches for a new path, and keeps the old one until a new one is found. */
  restartIce(): void {
    try {
      this.connection.restartIce();
    } catch (error) {
      this.context.reportMediaError(this, error); // not every class outside browsers can
    }
  }

  /** @internal */
  publish(track: MediaStreamTrack, stream: MediaStream): void {
    if (this.senders.has(track)) return;
    const pc = this.connection;
    const idle = pc.getTransceivers?.().find(({ sender, receiver, currentDirection }) =>
      this.idleSenders.has(sender) && receiver.track.kind === track.kind && currentDirection !== 'stopped');
    try {
      if (idle) {
        const { sender } = idle;
        this.idleSenders.delete(sender);
        this.senders.set(track, sender);
        sender.setStreams(stream);
        this.setTrack(sender, track);
        idle.direction = 'sendrecv';
      } else this.senders.set(track, pc.addTrack(track, stream));
    } catch (error) {
      this.context.reportMediaError(this, error);
    }
  }

  /** @internal */
  unpublish(track: MediaStreamTrack): void {
    const sender = this.senders.get(track);
    this.senders.delete(track);
    const pc = this.connection;
    if (!sender || pc.signalingState === 'closed') return;
    const transceiver = pc.getTransceivers?.().find((one) => one.sender === sender);
    if (!transceiver || !sender.setStreams) return pc.removeTrack(sender);
    // Not removeTrack: while a track is being set, it would find none to remove.
    this.setTrack(sender, null);
    transceiver.direction = transceiver.direction === 'sendonly' ? 'inactive' : 'recvonly';
    this.idleSenders.add(sender);
  }

  private setTrack(sender: RTCRtpSender, track: MediaStreamTrack | null): void {
    sender.replaceTrack(track).catch((error) => this.context.reportMediaError(this, error));
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
    this.isDetached = state === 'reconnecting';
    this.emit('state', { peer: this, state });
  }

  /** @internal Sets new ICE servers, and moves a connection that uses an old TURN allocation. */
  async updateIceServers(configuration: RTCConfiguration, isNewPolicy: boolean): Promise<void> {
    this.connection.setConfiguration(configuration);
    // With another policy the candidates in use may not be used any more.
    if (isNewPolicy) return this.restartIce();
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
   * @internal This client or the peer has joined anew, so an unanswered offer may be lost, or its answer: it is sent again.
   * After a join of this client (`restart`) the peer may have replaced its connection as well; a new offer finds out.
   */
  renegotiate(restart: boolean): void {
    if (!restart) this.sendKey(this.remoteKey);
    // Not both: Firefox (153) fails the DTLS transport where a second ICE restart begins while a data channel opens.
    if (this.offer) this.sendOffer();
    else if (restart && this.connection.remoteDescription) this.restartIce();
  }

  /** @internal */
  dispose(): void {
    clearTimeout(this.restartTimer);
    clearTimeout(this.handshakeTimer);
    clearTimeout(this.answerTimer);
    this.finish();
    this.close();
  }

  private close(): void {
    this.connection.close();
    for (const done of this.statsCalls) done({ bytesSent: 0, bytesReceived: 0 });
    this.statsCalls.clear();
  }

  private createConnection(): void {
    const Class = this.context.RTCPeerConnection ?? (NoConnection as unknown as typeof RTCPeerConnection);
    let pc: RTCPeerConnection;
    try {
      pc = new Class(this.context.configuration);
    } catch (error) {
      queueMicrotask(() => this.context.reportMediaError(this, error));
      pc = new NoConnection() as unknown as RTCPeerConnection;
    }
    for (const track of this.tracks.keys()) this.removeTrack(track);
    this.connection = pc;
    this.polite = this.member.polite;
    this.localKey = Math.random().toString(36).slice(2, 10);
    this.remoteKey = undefined;
    this.newest = 0;
    this.offer = undefined;
    this.isUp = this.isIgnoringOffer = false;
    this.candidates = [];
    this.senders.clear();
    this.idleSenders.clear();
    let awaitsOffer = !this.offersFirst;
    pc.onnegotiationneeded = () => {
      // The new member most likely sends an offer at once; the answer to it then contains the local tracks, and the
      // browser fires this event again if it does not contain everything. Of a closed connection Firefox (153) refuses to tell the
      // remote description.
      if (awaitsOffer && !pc.remoteDescription) setTimeout(() => pc.signalingState === 'closed' || pc.remoteDescription || this.negotiate(pc), OFFER_TIMEOUT);
      else this.negotiate(pc);
      awaitsOffer = false;
    };
    pc.onicecandidate = ({ candidate }) => {
      if (this.onCandidate) this.onCandidate();
      else this.context.membership.send({ type: 'ice_candidate', to: this.id, candidate });
    };
    pc.ontrack = ({ track, streams }) => {
      this.removeTrack(track); // it has moved to another stream
      const remote: RemoteTrack = { peer: this, track, streams, label: this.labels[streams[0]?.id!] };
      this.tracks.set(track, remote);
      this.emit('track', remote);
    };
    pc.ondatachannel = ({ channel }) => this.emit('channel', { peer: this, channel });
    pc.onconnectionstatechange = () => this.handleConnectionState();
    pc.oniceconnectionstatechange = () => {
      clearTimeout(this.handshakeTimer);
      this.handshakeTimer = setTimeout(() => {
        if (pc.connectionState !== 'connected' && /^co/.test(pc.iceConnectionState)) this.replaceTransport(pc);
      }, HANDSHAKE_TIMEOUT * (this.polite ? 3 : 1));
    };
    pc.onsignalingstatechange = () => {
      // A first offer that was rolled back for an older client: an ICE restart makes Chromium gather.
      if (pc.connectionState === 'new') this.restartIn(pc.signalingState === 'stable' && ICE_START_TIMEOUT);
    };
    for (const stream of this.context.streams.keys()) for (const track of stream.getTracks()) this.publish(track, stream);
  }

  private removeTrack(track: MediaStreamTrack): void {
    const remote = this.tracks.get(track);
    if (this.tracks.delete(track)) this.emit('track-removed', remote!);
  }

  private replaceConnection(): void {
    this.close();
    if (!this.isFinished) this.createConnection();
  }

  /** Replaces this connection, and lets the peer do the same with its end, which has the key `remoteKey`. */
  private repair(remoteKey: string | undefined): void {
    if (this.isFinished) return;
    this.replaceConnection();
    this.sendKey(remoteKey);
  }

  /**
   * Replaces a connection whose DTLS transport has failed, or goes on with the handshake of a connection that the peer has replaced
   * meanwhile, as Chromium does: no ICE restart brings it back. Whether that is still to be tried.
   */
  private replaceTransport(pc: RTCPeerConnection): boolean {
    if (!this.isNumbered || this.repairs++ >= MAX_REPAIRS) return false;
    // In turn: what waits for a connection that is closed waits for good.
    this.enqueue(async () => { if (pc === this.connection) this.repair(this.remoteKey); });
    return true;
  }

  /** Runs `task` after the tasks before it, so that each begins and ends in the signaling state `stable`. */
  private enqueue(task: () => Promise<void>): void {
    // A member that has left may be back already, as another peer: what still waits for this one must not reach it.
    this.work = this.work.then(() => (this.isFinished ? undefined : task())).catch((error) => {
      if (!this.isFinished) this.context.reportMediaError(this, error);
    });
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

  /** Whether an offer of the peer that crosses `own` is ignored. Both ends come to the opposite answer. */
  private ignores(own: Description, other: Description): boolean {
    // Clients that do not number their offers roll back: between those and this one the polite one always yields.
    if (other.n === undefined) return !this.polite;
    // An answer was lost: one end is at the first description, and the other is not.
    if (!own.peer !== !other.peer) return !own.peer;
    return this.polite === !own.peer;
  }

  /** Sends an offer, unless one is not answered yet: the browser asks again after the answer if it does not suffice. */
  private negotiate(pc = this.connection): void {
    this.enqueue(async () => {
      if (pc !== this.connection || this.offer || this.unanswered >= MAX_UNANSWERED) return;
      try {
        const sdp = withoutCollisions((await pc.createOffer()).sdp);
        this.isOfferSet = this.wins();
        if (this.isOfferSet) await this.setLocal({ type: 'offer', sdp });
        this.offer = { type: 'offer', sdp, n: ++this.offers, peer: this.remoteKey || undefined };
        if (this.isOfferSet) await this.gather(pc);
        if (!this.isFinished) this.sendOffer();
      } catch (error) {
        if (pc === this.connection && this.isNumbered && this.repairs++ < MAX_REPAIRS) this.replaceConnection();
        throw error;
      }
    });
  }

  private sendOffer(): void {
    const pc = this.connection;
    const sdp = (this.isOfferSet && pc.localDescription?.sdp) || this.offer!.sdp!; // with the candidates since
    // Other libraries may refuse an offer that is not `actpass`, as aiortc 1.4 does (1.9 accepts it).
    this.sendDescription({ ...this.offer!, sdp: this.isNumbered ? keepRole(pc, sdp) : sdp });
    this.expectAnswer();
  }

  /** Takes back an offer that the peer refuses or has never received. */
  private expectAnswer(): void {
    const { connection: pc, offer } = this;
    clearTimeout(this.answerTimer);
    const check = async (): Promise<void> => {
      if (this.offer !== offer || pc !== this.connection) return;
      if (this.isDetached || this.context.membership.state !== 'connected') return this.expectAnswer();
      this.offer = undefined;
      this.unanswered++;
      if (pc.signalingState === 'have-local-offer') await pc.setLocalDescription({ type: 'rollback' });
      else this.negotiate(pc);
      throw new Error('an offer was not answered');
    };
    this.answerTimer = setTimeout(() => this.enqueue(check), ANSWER_TIMEOUT);
  }

  private async setLocal(description?: RTCLocalSessionDescriptionInit): Promise<void> {
    await this.connection.setLocalDescription(description);
    // Chromium (156) gives its senders the streams of the description, also if they have others since it was made.
    for (const [track, sender] of this.senders) {
      const stream = [...this.context.streams.keys()].find((one) => one.getTracks().includes(track));
      if (stream) sender.setStreams?.(stream);
    }
  }

  /**
   * Waits for the first candidate after an ICE restart, so that the description contains one. Without it Chromium (156) pairs its new
   * candidates with the old ones of the peer. Firefox (153) still answers there, and Chromium then never nominates a new pair.
   */
  private async gather(pc: RTCPeerConnection): Promise<void> {
    if (!this.isUp || /a=cand/.test(pc.localDescription!.sdp)) return;
    await new Promise<void>((done) => {
      this.onCandidate = done;
      setTimeout(done, CANDIDATE_TIMEOUT);
    });
    this.onCandidate = undefined;
  }

  private sendDescription({ type, sdp, n }: Description): void {
    const labels = Object.fromEntries([...this.context.streams].map(([{ id }, label]) => [id, label]));
    this.context.membership.send({ type, to: this.id, [type]: { type, sdp, pc: this.localKey, peer: this.remoteKey || undefined, n, labels } });
  }

  /** Tells the peer which connection this client has, with an answer without a description, if it knows another one. */
  private sendKey(remoteKey: string | undefined): void {
    const answer = { type: 'answer', pc: this.localKey, peer: remoteKey };
    if (remoteKey && this.isNumbered) this.context.membership.send({ type: 'answer', to: this.id, answer });
  }

  /** Perfect negotiation (W3C WebRTC, section 10.7), with other roles for the first offers and without rollbacks. */
  private async applyDescription(description: Description): Promise<void> {
    const { pc: remoteKey = '', peer, type, sdp, n, labels = {} } = description; // other client libraries send `type` and `sdp` only
    const isOffer = type === 'offer';
    this.isNumbered ||= Boolean(n ?? peer);
    if (peer && peer !== this.localKey) {
      // Meant for a connection that is replaced.
      if (isOffer || !sdp) this.sendKey(remoteKey);
      return;
    }
    if (this.remoteKey !== undefined && remoteKey !== this.remoteKey) {
      // The peer has replaced its connection, so this one has no other end any more.
      this.replaceConnection();
      if (!isOffer) return;
    }
    // A message may arrive twice or late; an offer that is not the newest is of no use to anybody.
    if (!sdp || (isOffer && n! < this.newest)) return;
    this.unanswered = 0;
    const pc = this.connection;
    const { offer } = this;
    this.isIgnoringOffer = isOffer && Boolean(offer) && this.ignores(offer!, description);
    if (this.isIgnoringOffer || (!isOffer && (!offer || (n ?? offer.n) !== offer.n))) return;
    this.offer = undefined;
    if (isOffer) this.newest = n ?? 0;
    try {
      this.labels = labels;
      if (!isOffer && !this.isOfferSet) await this.setLocal({ type: 'offer', sdp: offer!.sdp });
      await pc.setRemoteDescription({ type, sdp });
      this.remoteKey = remoteKey;
      for (const candidate of this.candidates.splice(0)) this.enqueue(() => this.addCandidate(candidate));
      if (isOffer) {
        await this.setLocal();
        await this.gather(pc);
        if (!this.isFinished) this.sendDescription({ type: 'answer', sdp: pc.localDescription!.sdp, n });
      }
      if (pc.connectionState === 'connected') this.restartIn(SEARCH_DELAY);
      for (const { receiver, currentDirection } of pc.getTransceivers?.() ?? []) {
        if (!/recv/.test(currentDirection!)) this.removeTrack(receiver.track);
      }
    } catch (error) {
      if (n === undefined || this.repairs++ >= MAX_REPAIRS) {
        if (!isOffer) await pc.setLocalDescription({ type: 'rollback' }).catch(() => {});
      } else {
        // The descriptions of the two ends do not belong together: an answer was lost in a crash of the server.
        this.repair(remoteKey);
      }
      throw error;
    }
  }

  private async addCandidate(candidate: RTCIceCandidateInit | null): Promise<void> {
    const pc = this.connection;
    if (!pc.remoteDescription) {
      this.candidates.push(candidate);
      return;
    }
    try {
      await pc.addIceCandidate(candidate ?? undefined);
    } catch (error) {
      if (!candidate?.candidate) return; // older browsers refuse the end of candidates
      // Candidates of an ignored offer or of a description that was rolled back fail, and that is expected.
      const ufrag = candidate?.usernameFragment;
      if (!this.isIgnoringOffer && (!ufrag || pc.remoteDescription?.sdp.includes(`a=ice-ufrag:${ufrag}`))) throw error;
    }
  }

  private handleConnectionState(): void {
    const pc = this.connection;
    const state = pc.connectionState;
    if (state === 'connected') {
      this.isUp = true;
      this.restarts = this.repairs = 0;
      void this.reportOutcome('connected');
    }
    // Where ICE has failed, an ICE restart helps: in Chromium (156), whose DTLS transport stays `connected`, and in Firefox (153) before the
    // first handshake. Later Firefox would say `connected` and send nothing.
    const isLost = state === 'failed' && (this.isUp || /^co/.test(pc.iceConnectionState))
      && [pc.sctp, ...pc.getSenders()].some((one) => one?.transport?.state === state);
    const isReplaced = isLost && this.replaceTransport(pc);
    this.restartIn(state === 'disconnected' ? RESTART_DELAY : state === 'failed' && !isReplaced && FAILED_DELAY);
    this.emit('state', { peer: this, state });
  }

  /** Restarts ICE after `delay` and later again, until the state is another one; `false` for a state that needs none. */
  private restartIn(delay: number | false): void {
    clearTimeout(this.restartTimer);
    if (!delay) return;
    // Both ends notice, and one restart is enough. The polite one waits longer and restarts if the other is offline, or has not noticed.
    const pause = Math.min(delay * 2 ** this.restarts, MAX_RESTART_DELAY) * (this.polite ? 3 : 1);
    const pc = this.connection;
    this.restartTimer = setTimeout(async () => {
      const isNeeded = await isSearching(pc).catch(() => false); // it is closed
      if (pc !== this.connection || this.isFinished) return;
      if (!isNeeded) return void (this.restarts = 0);
      if (this.restarts++ === MAX_RESTARTS) void this.reportOutcome('failed');
      this.restartIce();
      this.restartIn(delay);
    }, pause);
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

// A model of the browser's RTCPeerConnection: signaling as W3C webrtc-pc section 4.4 specifies it, with the faults of
// Chromium and Firefox that the client works around. A description is JSON, and lines that look like SDP.

let lastId = 0;
const nextId = (prefix) => `${prefix}${(lastId += 1)}`;
/** Who has which ICE user name: how two connections find each other. */
const byUfrag = new Map();

const sends = (direction) => direction === 'sendrecv' || direction === 'sendonly';
const receives = (direction) => direction === 'sendrecv' || direction === 'recvonly';
const directionOf = (send, receive) => (send ? (receive ? 'sendrecv' : 'sendonly') : receive ? 'recvonly' : 'inactive');
const reversed = (direction) => directionOf(receives(direction), sends(direction));

const write = ({ ufrag, setup, sections }) => `${JSON.stringify({ sections })}\na=ice-ufrag:${ufrag}\na=setup:${setup}\n`;
function read(sdp) {
  const [json, ...lines] = sdp.split('\n');
  const value = (name) => lines.find((line) => line.startsWith(`a=${name}:`)).split(':')[1];
  return { ...JSON.parse(json), ufrag: value('ice-ufrag'), setup: value('setup') };
}

const failure = (name, message) => Object.assign(new Error(message), { name });

export class Track {
  constructor(kind) { Object.assign(this, { kind, id: nextId('track') }); }
}

export class Stream {
  constructor(...kinds) {
    this.id = nextId('stream');
    this.tracks = kinds.map((kind) => new Track(kind));
  }
  getTracks() { return this.tracks; }
}

class Transceiver {
  mid = null;
  currentDirection = null;
  /** The stream that the remote description names, and whether the receiver stays muted as in Chromium. */
  remote = { streams: [], isMuted: false };
  constructor(pc, kind, { direction, isAddedTrack }) {
    Object.assign(this, { pc, kind, wanted: direction, isAddedTrack });
    this.receiver = { track: new Track(kind) };
    const transceiver = this;
    this.sender = {
      track: null, streams: [], hasSent: false,
      setStreams(...streams) { this.streams = streams; pc.updateNegotiationNeeded(); },
      replaceTrack(track) { return pc.chain(async () => { this.track = track; }); },
      get transceiver() { return transceiver; },
    };
  }
  get direction() { return this.wanted; }
  set direction(value) {
    if (value === this.wanted) return;
    this.wanted = value;
    this.pc.updateNegotiationNeeded();
  }
}

/** A class as of `browser`, which runs its tasks with `queue`. It notes its connections and what must not happen. */
export function modelOf(browser, queue) {
  return class RTCPeerConnection {
    static all = [];
    static faults = [];
    signalingState = 'stable';
    connectionState = 'new';
    currentLocalDescription = null;
    currentRemoteDescription = null;
    pendingLocalDescription = null;
    pendingRemoteDescription = null;
    transceivers = [];
    remoteStreams = new Map();
    channels = [];
    announced = new Set();
    operations = 0;
    last = Promise.resolve();
    isNegotiationNeeded = false;
    updateOnEmptyChain = false;
    restartFrom = null;
    lastOffer = null;
    role = null;
    largest = 0;
    first = 0;

    constructor() { this.constructor.all.push(this); }

    get localDescription() { return this.pendingLocalDescription ?? this.currentLocalDescription; }
    get remoteDescription() { return this.pendingRemoteDescription ?? this.currentRemoteDescription; }
    getTransceivers() { return [...this.transceivers]; }
    setConfiguration() {}
    async getStats() { return new Map(); }
    async addIceCandidate() {}

    /** Section 4.4.1.2: one operation after another; rejected and without effect once the connection is closed. */
    chain(operation) {
      this.operations += 1;
      const run = this.last.then(async () => {
        await new Promise((done) => queue(done));
        if (this.signalingState === 'closed') return new Promise(() => {});
        return operation();
      });
      this.last = run.then(() => {}, () => {}).then(() => {
        this.operations -= 1;
        if (this.operations === 0 && this.updateOnEmptyChain) {
          this.updateOnEmptyChain = false;
          this.updateNegotiationNeeded();
        }
      });
      return run;
    }

    // --- section 4.7.3 -------------------------------------------------------------------------------
    updateNegotiationNeeded() {
      if (this.operations > 0) { this.updateOnEmptyChain = true; return; }
      queue(() => {
        if (this.signalingState === 'closed') return;
        if (this.operations > 0) { this.updateOnEmptyChain = true; return; }
        if (this.signalingState !== 'stable') return;
        if (!this.needsNegotiation()) { this.isNegotiationNeeded = false; return; }
        if (this.isNegotiationNeeded) return;
        this.isNegotiationNeeded = true;
        this.onnegotiationneeded?.({});
      });
    }

    needsNegotiation() {
      if (this.restartFrom) return true;
      const local = this.currentLocalDescription && read(this.currentLocalDescription.sdp);
      const remote = this.currentRemoteDescription && read(this.currentRemoteDescription.sdp);
      if (this.channels.length && !local?.sections.some(({ kind }) => kind === 'application')) return true;
      return this.transceivers.some((transceiver) => {
        const mine = local?.sections.find(({ mid }) => mid === transceiver.mid);
        if (!mine) return true;
        const theirs = remote.sections.find(({ mid }) => mid === transceiver.mid);
        const { direction, sender } = transceiver;
        if (sends(direction) && `${sender.streams.map(({ id }) => id)}` !== `${mine.streams}`) return true;
        if (this.currentLocalDescription.type === 'offer') return direction !== mine.direction && direction !== reversed(theirs.direction);
        return mine.direction !== directionOf(sends(direction) && receives(theirs.direction), receives(direction) && sends(theirs.direction));
      });
    }

    // --- what an application calls -------------------------------------------------------------------
    addTrack(track, ...streams) {
      if (this.signalingState === 'closed') throw failure('InvalidStateError', 'closed');
      if (this.transceivers.some(({ sender }) => sender.track === track)) throw failure('InvalidAccessError', 'A sender already exists for the track');
      let transceiver = this.transceivers.find(({ kind, sender }) => kind === track.kind && !sender.track && !sender.hasSent);
      if (transceiver) transceiver.wanted = directionOf(true, receives(transceiver.wanted));
      else this.transceivers.push(transceiver = new Transceiver(this, track.kind, { direction: 'sendrecv', isAddedTrack: true }));
      Object.assign(transceiver.sender, { track, streams, hasSent: true });
      this.updateNegotiationNeeded();
      return transceiver.sender;
    }

    removeTrack(sender) {
      if (!sender.track) return;
      sender.track = null;
      const { transceiver } = sender;
      transceiver.direction = directionOf(false, receives(transceiver.direction));
    }

    createDataChannel(label) {
      const channel = { label };
      this.channels.push(channel);
      if (this.channels.length === 1) this.updateNegotiationNeeded();
      queue(() => this.openChannels());
      return channel;
    }

    restartIce() {
      this.restartFrom = this.currentLocalDescription ? read(this.currentLocalDescription.sdp).ufrag : null;
      if (this.restartFrom) this.updateNegotiationNeeded();
    }

    close() { this.signalingState = this.connectionState = 'closed'; }

    // --- descriptions --------------------------------------------------------------------------------
    createOffer() {
      return this.chain(async () => {
        if (!['stable', 'have-local-offer'].includes(this.signalingState)) throw failure('InvalidStateError', this.signalingState);
        return { type: 'offer', sdp: (this.lastOffer = this.describeOffer()) };
      });
    }

    describeOffer() {
      const local = this.currentLocalDescription && read(this.currentLocalDescription.sdp);
      const sections = (local?.sections ?? []).map(({ mid, kind }) => {
        const transceiver = this.transceivers.find((one) => one.mid === mid);
        return transceiver ? this.describe(transceiver, mid, transceiver.direction) : { mid, kind, direction: 'sendrecv', streams: [] };
      });
      const add = (describe) => sections.push(describe(`${sections.length}`));
      for (const transceiver of this.transceivers) {
        if (!sections.some(({ mid }) => mid === transceiver.mid)) add((mid) => this.describe(transceiver, mid, transceiver.direction));
      }
      if (this.channels.length && !sections.some(({ kind }) => kind === 'application')) {
        add((mid) => ({ mid, kind: 'application', direction: 'sendrecv', streams: [] }));
      }
      return write({ ufrag: !local || this.restartFrom ? this.newUfrag() : local.ufrag, setup: 'actpass', sections });
    }

    describeAnswer() {
      const offer = read(this.pendingRemoteDescription.sdp);
      const current = this.currentLocalDescription && read(this.currentLocalDescription.sdp);
      const hasRestarted = !current || read(this.currentRemoteDescription.sdp).ufrag !== offer.ufrag;
      const sections = offer.sections.map(({ mid, kind, direction }) => {
        const transceiver = this.transceivers.find((one) => one.mid === mid);
        if (!transceiver) return { mid, kind, direction, streams: [] };
        const [send, receive] = [sends(transceiver.direction) && receives(direction), receives(transceiver.direction) && sends(direction)];
        return this.describe(transceiver, mid, directionOf(send, receive));
      });
      let setup = offer.setup === 'actpass' ? this.role ?? 'active' : { active: 'passive', passive: 'active' }[offer.setup];
      // Firefox takes the role that it prefers when ICE restarts.
      if (browser === 'firefox' && hasRestarted && offer.setup === 'actpass') setup = 'active';
      return write({ ufrag: hasRestarted ? this.newUfrag() : current.ufrag, setup, sections });
    }

    describe({ kind, sender }, mid, direction) {
      return { mid, kind, direction, streams: sends(direction) ? sender.streams.map(({ id }) => id) : [] };
    }

    newUfrag() {
      const ufrag = nextId('u');
      byUfrag.set(ufrag, this);
      return ufrag;
    }

    setLocalDescription(description) {
      return this.chain(async () => {
        const type = description?.type ?? (this.signalingState === 'have-remote-offer' ? 'answer' : 'offer');
        if (type === 'rollback') return this.rollBack();
        const allowed = type === 'offer' ? ['stable', 'have-local-offer'] : ['have-remote-offer'];
        if (!allowed.includes(this.signalingState)) throw failure('InvalidStateError', `local ${type} in ${this.signalingState}`);
        const sdp = description?.sdp ?? (type === 'offer' ? (this.lastOffer = this.describeOffer()) : this.describeAnswer());
        if (type === 'offer' && sdp !== this.lastOffer) throw failure('InvalidModificationError', 'not the last offer');
        this.note(sdp);
        this.pendingLocalDescription = { type, sdp };
        const { sections } = read(sdp);
        // Chromium gives its senders the streams of the description, also if they have others since it was made.
        for (const { mid, direction, streams } of browser === 'chromium' ? sections : []) {
          const sender = this.transceivers.find((one) => one.mid === mid)?.sender;
          if (sender && sends(direction)) sender.streams = streams.map((id) => ({ id }));
        }
        if (type === 'offer') {
          for (const { mid, kind } of sections) {
            if (kind === 'application' || this.transceivers.some((one) => one.mid === mid)) continue;
            Object.assign(this.transceivers.find((one) => one.kind === kind && one.mid === null), { mid, isPending: true });
          }
          this.setState('have-local-offer');
        } else {
          this.setRole(read(sdp).setup);
          this.settle();
        }
      });
    }

    setRemoteDescription({ type, sdp }) {
      return this.chain(async () => {
        if (type === 'offer' && this.signalingState === 'have-local-offer') this.rollBack();
        const expected = type === 'offer' ? ['stable', 'have-remote-offer'] : ['have-local-offer'];
        if (!expected.includes(this.signalingState)) throw failure('InvalidStateError', `remote ${type} in ${this.signalingState}`);
        const { sections, setup } = read(sdp);
        if (type === 'answer') this.setRole({ active: 'passive', passive: 'active' }[setup]);
        this.note(sdp);
        this.pendingRemoteDescription = { type, sdp };
        for (const { mid, kind, direction, streams } of sections) {
          if (kind === 'application') continue;
          let transceiver = this.transceivers.find((one) => one.mid === mid);
          if (!transceiver && type === 'offer') {
            transceiver = this.transceivers.find((one) => one.kind === kind && one.mid === null && one.isAddedTrack);
            if (!transceiver) this.transceivers.push(transceiver = new Transceiver(this, kind, { direction: 'recvonly', isAddedTrack: false }));
            transceiver.mid = mid;
          }
          if (!transceiver || transceiver.kind !== kind) throw failure('InvalidAccessError', `the sections do not fit: ${mid}`);
          this.receive(transceiver, sends(direction) ? streams : []);
        }
        if (type === 'offer') this.setState('have-remote-offer');
        else this.settle();
      });
    }

    /** Section 4.4.1.5: removed tracks are told before added ones. */
    receive({ receiver, remote }, streams) {
      const { track } = receiver;
      const gone = remote.streams.filter((id) => !streams.includes(id)).map((id) => this.remoteStream(id));
      const isNew = streams.some((id) => !remote.streams.includes(id));
      remote.streams = streams;
      if (gone.length) queue(() => { for (const stream of gone) if (this.signalingState !== 'closed') stream.onremovetrack?.({ track }); });
      if (isNew) queue(() => this.signalingState !== 'closed' && this.ontrack?.({ track, streams: streams.map((id) => this.remoteStream(id)) }));
    }

    remoteStream(id) {
      if (!this.remoteStreams.has(id)) this.remoteStreams.set(id, { id });
      return this.remoteStreams.get(id);
    }

    setRole(role) {
      if (this.role && this.role !== role) throw failure('OperationError', 'Failed to set SSL role for the transport');
      this.role = role;
    }

    rollBack() {
      if (this.signalingState !== 'have-local-offer') throw failure('InvalidStateError', this.signalingState);
      this.pendingLocalDescription = null;
      // Chromium (156) forgets the channels that no description has had yet: they stay `connecting`, and it offers no section for them.
      if (browser === 'chromium' && !this.currentLocalDescription?.sdp.includes('"application"')) this.channels = [];
      for (const transceiver of this.transceivers) {
        if (!transceiver.isPending) continue;
        Object.assign(transceiver, { mid: null, isPending: false });
        if (browser === 'chromium') transceiver.remote.isMuted = true;
      }
      this.setState('stable');
      this.isNegotiationNeeded = false;
      this.updateOnEmptyChain = true;
    }

    settle() {
      const isAnswerer = this.pendingLocalDescription.type === 'answer';
      this.currentLocalDescription = this.pendingLocalDescription;
      this.currentRemoteDescription = this.pendingRemoteDescription;
      this.pendingLocalDescription = this.pendingRemoteDescription = null;
      const local = read(this.currentLocalDescription.sdp);
      const answer = isAnswerer ? local : read(this.currentRemoteDescription.sdp);
      for (const transceiver of this.transceivers) {
        const section = answer.sections.find(({ mid }) => mid === transceiver.mid);
        if (section) transceiver.currentDirection = isAnswerer ? section.direction : reversed(section.direction);
        transceiver.isPending = false;
      }
      if (this.restartFrom && local.ufrag !== this.restartFrom) this.restartFrom = null;
      this.setState('stable');
      this.isNegotiationNeeded = false;
      this.updateOnEmptyChain = true;
      queue(() => this.openChannels());
    }

    setState(state) {
      this.signalingState = state;
      queue(() => this.signalingState !== 'closed' && this.onsignalingstatechange?.({}));
    }

    note({ length }) {
      this.first ||= length;
      this.largest = Math.max(this.largest, length);
    }

    // --- the media path ------------------------------------------------------------------------------

    /** The other end: each has the other's ICE user name. */
    get other() {
      if (!this.currentRemoteDescription) return undefined;
      const other = byUfrag.get(read(this.currentRemoteDescription.sdp).ufrag);
      const isMutual = other?.currentRemoteDescription && read(other.currentRemoteDescription.sdp).ufrag === read(this.currentLocalDescription.sdp).ufrag;
      return isMutual && other.signalingState !== 'closed' ? other : undefined;
    }

    openChannels() {
      const { other } = this;
      if (!other || this.signalingState === 'closed') return;
      for (const one of [this, other]) {
        if (one.connectionState === 'new') {
          one.connectionState = 'connected';
          queue(() => one.signalingState !== 'closed' && one.onconnectionstatechange?.({}));
        }
      }
      for (const [from, to] of [[this, other], [other, this]]) {
        for (const channel of from.channels) {
          if (to.announced.has(channel) || !read(from.currentLocalDescription.sdp).sections.some(({ kind }) => kind === 'application')) continue;
          to.announced.add(channel);
          queue(() => to.ondatachannel?.({ channel }));
        }
      }
    }
  };
}

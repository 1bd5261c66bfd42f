import { Emitter } from './events.js';
import { type PeerStats } from './stats.js';
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
    channel: {
        peer: Peer;
        channel: RTCDataChannel;
    };
    /** The state of the RTCPeerConnection, or `reconnecting` while the peer has no connection to the server. */
    state: {
        peer: Peer;
        state: RTCPeerConnectionState | 'reconnecting';
    };
    message: {
        peer: Peer;
        data: unknown;
    };
}
/** Another member of the room, and the RTCPeerConnection to it. */
export declare class Peer extends Emitter<PeerEvents> {
    private context;
    /** Whether this client makes the first offer: it joined later than the peer. */
    private offersFirst;
    readonly id: string;
    readonly username: string;
    /** The display name that the peer's token gives it; undefined if it gives none. */
    name: string | undefined;
    /** Whether this client is the polite one of the pair: on an offer collision it accepts the other's offer. */
    polite: boolean;
    /** Replaced when the peer starts a new RTCPeerConnection. */
    connection: RTCPeerConnection;
    /** What this peer publishes at the moment. */
    readonly tracks: Map<MediaStreamTrack, RemoteTrack>;
    private member;
    private labels;
    private localKey;
    private remoteKey;
    /** The offer that was sent and is not answered yet. */
    private offer;
    /** Whether that offer is set as the local description. */
    private isOfferSet;
    private offers;
    /** The number of the newest offer of the peer's connection. */
    private newest;
    private unanswered;
    private repairs;
    /** Whether the peer numbers its offers, and thus understands an answer without a description. */
    private isNumbered;
    private answerTimer;
    private isDetached;
    private isIgnoringOffer;
    /** Called for a candidate instead of sending it: the next description contains it. */
    private onCandidate;
    /** Candidates that arrived before a remote description. */
    private candidates;
    /** Ends the calls of `stats` that are under way when the connection is closed: Firefox (153) then never answers them. */
    private statsCalls;
    private senders;
    /** Senders whose track is unpublished; their media sections are used again. */
    private idleSenders;
    private work;
    private restarts;
    private restartTimer;
    private handshakeTimer;
    /** Whether the connection has been `connected`. */
    private isUp;
    private isReported;
    private createdAt;
    /** Creates a data channel to this peer, which receives it as a `channel` event. */
    createDataChannel(label: string, options?: RTCDataChannelInit): RTCDataChannel;
    /** Sends any JSON value to this peer alone, through the server. */
    send(data: unknown): void;
    /** The path of the media at the moment, its round-trip time and the bytes so far. */
    stats(): Promise<PeerStats>;
    /** Restarts ICE: searches for a new path, and keeps the old one until a new one is found. */
    restartIce(): void;
    private setTrack;
    private close;
    private createConnection;
    private removeTrack;
    private replaceConnection;
    /** Replaces this connection, and lets the peer do the same with its end, which has the key `remoteKey`. */
    private repair;
    /**
     * Replaces a connection whose DTLS transport has failed, or goes on with the handshake of a connection that the peer has replaced
     * meanwhile, as Chromium does: no ICE restart brings it back. Whether that is still to be tried.
     */
    private replaceTransport;
    /** Runs `task` after the tasks before it, so that each begins and ends in the signaling state `stable`. */
    private enqueue;
    /**
     * Whether the offer of this client prevails when offers cross: for the first description of a connection the offer of
     * the member that joined later, which is the polite one; after that, the offer of the other.
     *
     * The offer that prevails is set at once, so that candidates are gathered early. The other is set only together with its
     * answer, and dropped where offers cross. So nothing is rolled back: after a rollback Chromium leaves the remote tracks
     * `muted` for good, although they play, and may gather no candidates.
     */
    private wins;
    /** Whether an offer of the peer that crosses `own` is ignored. Both ends come to the opposite answer. */
    private ignores;
    /** Sends an offer, unless one is not answered yet: the browser asks again after the answer if it does not suffice. */
    private negotiate;
    private sendOffer;
    /** Takes back an offer that the peer refuses or has never received. */
    private expectAnswer;
    private setLocal;
    /**
     * Waits for the first candidate after an ICE restart, so that the description contains one. Without it Chromium (156) pairs its new
     * candidates with the old ones of the peer. Firefox (153) still answers there, and Chromium then never nominates a new pair.
     */
    private gather;
    private sendDescription;
    /** Tells the peer which connection this client has, with an answer without a description, if it knows another one. */
    private sendKey;
    /** Perfect negotiation (W3C WebRTC, section 10.7), with other roles for the first offers and without rollbacks. */
    private applyDescription;
    private addCandidate;
    private handleConnectionState;
    /** Restarts ICE after `delay` and later again, until the state is another one; `false` for a state that needs none. */
    private restartIn;
    /** Reports the first outcome of the call to the server, for its metrics. */
    private reportOutcome;
}

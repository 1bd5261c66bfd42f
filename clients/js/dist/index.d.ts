/** WebRTC calls over signaling-server. Start at {@link connect}. */
import { Emitter } from './events.js';
import { Peer, type PeerEvents } from './peer.js';
import { SignalError, type SignalOptions, type State, type StateEvent } from './signal.js';
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
    'peer-joined': {
        peer: Peer;
    };
    'peer-left': {
        peer: Peer;
    };
    track: PeerEvents['track'];
    channel: PeerEvents['channel'];
    /** `peer` has said `data` by the way of the server. */
    message: PeerEvents['message'];
    /** An administrator of the server has said `data`. */
    'server-message': {
        data: any;
    };
    /** A peer's connection has changed. */
    peer: PeerEvents['state'];
    state: StateEvent;
    error: {
        error: SignalError;
    };
}
/** One room, and an RTCPeerConnection to everyone else in it. */
export declare class Session extends Emitter<SessionEvents> {
    private options;
    /** The others, by client id. */
    readonly peers: Map<string, Peer>;
    /** Who is there by the server's word. */
    private present;
    private missing;
    /** Our own client id. */
    get id(): string;
    /** Our own name. */
    get username(): string;
    get state(): State;
    /** Sends every track of `stream` to everyone, also to those who come later. */
    publish(stream: MediaStream): void;
    /** No longer sends what is in `stream`; it is not stopped. */
    unpublish(stream: MediaStream): void;
    /** Sends `next` in place of `old` (another camera), without negotiating again; `old` is not stopped. */
    replaceTrack(old: MediaStreamTrack, next: MediaStreamTrack): Promise<void>;
    /** Says something to everyone, or to the one whose client id is `to`, by the way of the server. */
    send(data: unknown, { to }?: {
        to?: string;
    }): void;
    /** Leaves. Tracks go on; they are whose who made them. */
    close(): void;
    private joined;
    private heard;
    private meets;
    private leaves;
    private over;
}
/**
 * Enters a room; resolves when we are in.
 *
 * @throws SignalError if the server does not let us in. While it cannot be reached, this goes on trying.
 */
export declare function connect(options: ConnectOptions): Promise<Session>;

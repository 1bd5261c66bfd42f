import { SignalError } from './error.js';
import { Emitter } from './events.js';
import { type SignalOptions, type State, type StateEvent } from './membership.js';
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
    'peer-joined': {
        peer: Peer;
        existing: boolean;
    };
    'peer-left': {
        peer: Peer;
    };
    track: PeerEvents['track'];
    /** The peer publishes this track no longer, or its connection is replaced. */
    'track-removed': PeerEvents['track-removed'];
    channel: PeerEvents['channel'];
    /** `peer` has sent `data` through the server. */
    message: PeerEvents['message'];
    /** An administrator of the server has sent `data` to the room. */
    'server-message': {
        data: any;
    };
    /** The state of a peer's connection has changed. */
    peer: PeerEvents['state'];
    state: StateEvent;
    error: {
        error: SignalError;
    };
}
/** One room, and an RTCPeerConnection to every other member. */
export declare class Session extends Emitter<SessionEvents> {
    private options;
    /** The other members, by client id. */
    readonly peers: Map<string, Peer>;
    /** The client ids of the members that the server lists; `peers` may also hold missing ones. */
    private present;
    private missingTimer;
    /** Events of the first join, for listeners that are added once `connect` has resolved. */
    private pending;
    private hasJoined;
    private pendingTimer;
    /** The ICE servers, without those that the RTCPeerConnection class refuses. */
    private iceServers;
    /** The client id of this client. */
    get id(): string;
    /** The username of this client. */
    get username(): string;
    get state(): State;
    /**
     * Sends every track of `stream` to all peers, also to those that join later. They receive `label` with each track, for
     * example to tell a shared screen from a camera.
     */
    publish(stream: MediaStream, label?: string | undefined): void;
    /** Stops sending the tracks of `stream`. The tracks themselves are not stopped. */
    unpublish(stream: MediaStream): void;
    /** Sends `next` in place of `old` (another camera), without a new negotiation; `old` is not stopped. */
    replaceTrack(old: MediaStreamTrack, next: MediaStreamTrack): Promise<void>;
    /**
     * Sends any JSON value through the server, to every peer or to the one with the client id `to`.
     *
     * @throws SignalError `message_too_big` for what is longer than the server accepts; the session goes on.
     */
    send(data: unknown, { to }?: {
        to?: string;
    }): void;
    /** Leaves the room. Tracks are not stopped; they belong to the caller. */
    close(): void;
    private report;
    /** Calls `emit` once the listeners that follow `connect` are there, and in order. */
    private emitLater;
    private emitPending;
    /** One server that the browser refuses, such as one on a port that Firefox blocks, must not cost the others. */
    private usable;
    private handleJoined;
    private handleFrame;
    private addPeer;
    private removePeer;
    private removeAllPeers;
}
/**
 * Joins a room and resolves with the session.
 *
 * While the server cannot be reached, `connect` keeps trying.
 *
 * @throws SignalError if the server refuses the client.
 */
export declare function connect(options: ConnectOptions): Promise<Session>;

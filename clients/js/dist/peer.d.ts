import { Emitter } from './events.js';
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
    track: {
        peer: Peer;
        track: MediaStreamTrack;
        streams: readonly MediaStream[];
    };
    channel: {
        peer: Peer;
        channel: RTCDataChannel;
    };
    /** Of its RTCPeerConnection, or `reconnecting` while the server has lost it. */
    state: {
        peer: Peer;
        state: RTCPeerConnectionState | 'reconnecting';
    };
    message: {
        peer: Peer;
        data: unknown;
    };
}
/** Another member, and the RTCPeerConnection to it. */
export declare class Peer extends Emitter<PeerEvents> {
    private session;
    /** Whether it falls to us to offer first, for we came later. */
    private isCaller;
    readonly id: string;
    readonly username: string;
    /** Whether we give way to it when both offer at once. */
    polite: boolean;
    /** Replaced when the peer begins anew. */
    connection: RTCPeerConnection;
    private key;
    private theirKey;
    private isOffering;
    private isIgnoring;
    private early;
    private senders;
    private work;
    private restarts;
    private restart;
    private begins;
    private isReported;
    private began;
    /** A data channel to this peer; it hears of it by `channel`. */
    createDataChannel(label: string, options?: RTCDataChannelInit): RTCDataChannel;
    /** Says something to this peer alone. */
    send(data: unknown): void;
    /** How the media goes at the moment. */
    stats(): Promise<PeerStats>;
    /** Looks for a new way for the media, and keeps the old one until there is one. */
    restartIce(): void;
    private begin;
    private describe;
    /** Perfect negotiation (W3C WebRTC, section 10.7). */
    private description;
    private candidate;
    private isOfAnother;
    private changes;
    private report;
}

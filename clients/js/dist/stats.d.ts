/** The path of the media: `host` on the same network, `srflx` through a NAT, `relay` through a TURN server. */
export type Path = 'host' | 'srflx' | 'relay';
export interface PeerStats {
    /** Undefined while no candidate pair is in use. */
    path?: Path;
    /** Round-trip time in milliseconds. */
    rtt?: number;
    /** Bytes to and from the peer over all transports; in Firefox, since the last ICE restart. */
    bytesSent: number;
    bytesReceived: number;
}

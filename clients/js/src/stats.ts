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

/** @internal Summarises the statistics of a connection, in Chromium's and in Firefox's form. */
export async function readStats(connection: RTCPeerConnection): Promise<PeerStats> {
  const report = await connection.getStats();
  const stats: PeerStats = { bytesSent: 0, bytesReceived: 0 };
  const entries: any[] = [];
  report.forEach((entry) => entries.push(entry));
  const ofType = (type: string) => entries.filter((entry) => entry.type === type);
  const [transports, pairs] = [ofType('transport'), ofType('candidate-pair')];
  // Firefox counts bytes only for each pair, and its older versions report no transports.
  const counted = transports.some(({ bytesSent }) => bytesSent >= 0) ? transports : pairs;
  for (const { bytesSent = 0, bytesReceived = 0 } of counted) {
    stats.bytesSent += bytesSent;
    stats.bytesReceived += bytesReceived;
  }
  // Pairs that were in use before stay nominated. A pair in use whose consent is being checked is `in-progress`.
  const selected = transports.map(({ selectedCandidatePairId }) => selectedCandidatePairId);
  const pair = pairs.find(({ id, state, selected: is }) => (is === undefined ? selected.includes(id) : is && state === 'succeeded'));
  if (!pair) return stats;
  const types = [pair.localCandidateId, pair.remoteCandidateId].map((id) => {
    const { candidateType, address, port } = report.get(id) ?? {};
    if (candidateType !== 'prflx') return candidateType;
    // In Firefox a candidate whose packets arrived before its description stays peer reflexive, even a relay candidate.
    // The remote description has its real type.
    const sdp = connection.remoteDescription?.sdp ?? '';
    return new RegExp(` ${address} ${port} typ (\\w+)`).exec(sdp)?.[1] ?? candidateType;
  });
  stats.path = types.includes('relay') ? 'relay' : types.some((type) => /flx$/.test(type)) ? 'srflx' : 'host';
  // RTCP may have measured the round-trip time where the pair has not.
  const seconds = pair.currentRoundTripTime ?? ofType('remote-inbound-rtp')[0]?.roundTripTime;
  if (seconds >= 0) stats.rtt = Math.round(seconds * 1000);
  return stats;
}

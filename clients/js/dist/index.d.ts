/** WebRTC calls over signaling-server. Start at {@link connect}. */
export { SignalError } from './error.js';
export { signIn, type Account } from './login.js';
export type { SignalOptions, State, StateEvent } from './membership.js';
export { Peer, type PeerEvents, type RemoteTrack } from './peer.js';
export { connect, Session, type ConnectOptions, type SessionEvents } from './session.js';
export type { Path, PeerStats } from './stats.js';

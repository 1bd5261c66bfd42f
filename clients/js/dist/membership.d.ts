/** `connecting` until the client first joins, `reconnecting` while there is no joined socket after that, `closed` at the end. */
export type State = 'connecting' | 'connected' | 'reconnecting' | 'closed';
export interface StateEvent {
    state: State;
    /** The delay until the next attempt, in milliseconds. */
    retryIn?: number;
    /** The close code of the last socket. */
    code?: number;
    /** The close reason of the last socket. */
    reason?: string;
}
export interface SignalOptions {
    /** The base URL of the server, such as `https://example.com`, with the path prefix of a reverse proxy if there is one. */
    url: string;
    room: string;
    /** A token from `POST /auth/login`. With neither `token` nor `getToken` the client joins as a guest, if the server allows guests. */
    token?: string;
    /** Called whenever a token is needed. `renew` is true after a token was refused and shortly before one expires. */
    getToken?: (renew: boolean) => string | Promise<string>;
    /** Unique in its room; the server assigns one if it is left out. */
    clientId?: string;
    /** A WebSocket class, for environments without a global one (Node before 22). */
    WebSocket?: new (url: string) => WebSocket;
}
/** A room member as the server lists it. */
export interface Member {
    client_id: string;
    username: string;
    /** The display name that the token of the member gives it. */
    name?: string;
    /** Whether this client is the polite one of the pair: on an offer collision it accepts the other's offer. */
    polite: boolean;
}

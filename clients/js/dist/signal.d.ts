/**
 * What went wrong. `code` is the server's word, or one of ours: `closed`, `no_token`, `media_failed`; from `signIn`
 * `unauthorized`, `unreachable`, `http_` and the status.
 */
export declare class SignalError extends Error {
    readonly code: string;
    /** The session is over; coming back makes no sense as it is. */
    readonly fatal: boolean;
    /** Milliseconds that the server asks to wait. */
    retryAfter?: number;
    constructor(code: string, message: string, 
    /** The session is over; coming back makes no sense as it is. */
    fatal?: boolean);
}
/** `connecting` until the first seat, `reconnecting` whenever there is no socket, `closed` for good. */
export type State = 'connecting' | 'connected' | 'reconnecting' | 'closed';
export interface StateEvent {
    state: State;
    /** Milliseconds until the next attempt. */
    retryIn?: number;
    /** The close code of the last socket. */
    code?: number;
    /** What it said. */
    reason?: string;
}
export interface SignalOptions {
    /** Where the server is: `https://example.com`, with a path where it is behind one. */
    url: string;
    room: string;
    /** A token as `POST /auth/login` gives it. None at all makes a guest, where guests are welcome. */
    token?: string;
    /** Asked whenever a token is needed; `renew` after one was refused or is about to run out. */
    getToken?: (renew: boolean) => string | Promise<string>;
    /** Unique in its room; the server chooses where it is left out. */
    clientId?: string;
    /** A WebSocket class, where there is no global one (Node before 22). */
    WebSocket?: new (url: string) => WebSocket;
}
/** A member as the server lists it. */
export interface Member {
    client_id: string;
    username: string;
    /** Whether we give way to it when both offer at once. */
    polite: boolean;
}
/** How long to wait before attempt `number`: anything up to twice as long each time. */
export declare const pauseBefore: (number: number, random?: () => number) => number;
/** When a JWT runs out, in milliseconds since the epoch. */
export declare function expiryOf(token: string): number | undefined;

/**
 * An error of a session or of a login.
 *
 * `code` is the error code of the server, or one of the client's own: `closed`, `no_token`, `no_websocket`,
 * `message_too_big`, `media_failed`, `ice_server_refused`; from `signIn`
 * `unauthorized`, `unreachable`, or `http_` followed by the status.
 */
export class SignalError extends Error {
  /** The delay that the server asks for before the next attempt, in milliseconds. */
  retryAfter?: number;

  constructor(
    readonly code: string,
    message: string,
    /** The session has ended, and reconnecting with the same options would fail again. */
    readonly fatal = false,
  ) {
    super(message);
    this.name = 'SignalError';
  }
}

// Keeps one membership of one room over successive WebSockets (docs/build/protocol.md). It knows nothing of WebRTC. Its timers and the
// messages that it keeps belong to one state, so this file is longer than others.

import { SignalError } from './error.js';
import { lifetimeOf } from './token.js';

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

type Frame = Record<string, any> & { type: string };

/** @internal The callbacks of a membership. */
export interface MembershipHandlers {
  /** The client has joined without resuming; these are the other members. */
  joined(members: Member[]): void;
  /** The client has resumed its membership; no frame was lost. */
  resumed(): void;
  frame(frame: Frame): void;
  state(event: StateEvent): void;
  error(error: SignalError): void;
  /** Other ICE servers, or the same with another policy: `isNewPolicy`. */
  iceServers(servers: RTCIceServer[], isNewPolicy: boolean): void;
}

// All in milliseconds.
const PING_INTERVAL = 15_000;
/** From a ping to the next frame, and from opening a socket to joining. */
const RESPONSE_TIMEOUT = 10_000;
/** After a token refresh that failed. */
const REFRESH_RETRY_DELAY = 15_000;
const FIRST_RETRY_DELAY = 300;
const MAX_RETRY_DELAY = 15_000;

/** How many frames are kept: unsent, or sent and not yet acknowledged. */
const MAX_KEPT_FRAMES = 200;
/** So many unacknowledged frames make the client send a ping, which carries the acknowledgement. */
const ACK_AFTER = 32;
/** Close reasons after which the client tries once with a new token. */
const TOKEN_REASONS = /^(Invalid token|Token expired)$/;
/** The same as codes of the `error` before the close, where a network or a browser hides the close. */
const TOKEN_CODES = /^(invalid_token|token_expired|logged_out|password_changed)$/;
/** What an acknowledgement may add to a frame, in bytes. */
const ACK_BYTES = 24;
/** Close codes after which the client reconnects, unless an error frame before the close decides. */
const RETRIED_CODES = new Set([1001, 1005, 1006, 1011, 1012, 1013, 1014]);

/** The delay before attempt `attempt`, in milliseconds: full jitter, with a limit that doubles up to MAX_RETRY_DELAY. */
const retryDelay = (attempt: number): number =>
  Math.random() * Math.min(MAX_RETRY_DELAY, FIRST_RETRY_DELAY * 2 ** attempt);

/** Wraps what `getToken` threw. A fatal SignalError is passed on as it is, unless the session may go on without a new token. */
const tokenError = (error: unknown, mayBeFatal = true): SignalError =>
  error instanceof SignalError && (mayBeFatal || !error.fatal) ? error : new SignalError('no_token', `getToken: ${error}`);

const encoder = new TextEncoder();

/** @internal */
export class Membership {
  clientId?: string;
  username?: string;
  iceServers: RTCIceServer[] = [];
  /** `relay` where the token allows TURN servers only. */
  iceTransportPolicy?: RTCIceTransportPolicy;
  state: State = 'connecting';

  private socket: WebSocket | undefined;
  private resumeToken?: string;
  private lastSeq = 0;
  private acked = 0;
  private attempt = 0;
  private nextId = 0;
  /** Frames that are unsent, or sent and neither confirmed by a pong nor refused. */
  private kept: Frame[] = [];
  /** The id of the last frame that the awaited pong will confirm; undefined if no pong is awaited. */
  private pinged: number | undefined;
  /** Frames up to this `seq` are replayed from the previous socket. */
  private replayEnd = 0;
  /** Unresponsive sockets. They are closed only after the resume: a Close frame that the server reads first means leaving. */
  private abandoned: WebSocket[] = [];
  /** A refreshed token that could not be sent yet. */
  private pendingToken: string | undefined;
  private maxBytes = Infinity;
  /** What `getToken` is asked for: once, also where the socket that needs it closes meanwhile. */
  private tokenRequest: Promise<string> | undefined;
  /** The last token of `getToken`, which is replaced before it expires. */
  private renewable: string | undefined;
  private renew = false;
  private hasRenewed = false;
  private isJoined = false;
  private lastError: Frame | undefined;
  private reconnectIn: number | undefined;
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private heartbeatTimer: ReturnType<typeof setTimeout> | undefined;
  private refreshTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private options: SignalOptions,
    private handlers: MembershipHandlers,
  ) {
    if (options.clientId) this.clientId = options.clientId;
    globalThis.addEventListener?.('online', this.wake);
    globalThis.addEventListener?.('pageshow', this.wake);
    globalThis.addEventListener?.('pagehide', this.suspend);
    globalThis.addEventListener?.('offline', this.abandon);
    globalThis.document?.addEventListener('visibilitychange', this.wake);
    this.open();
  }

  /**
   * Sends a frame in order. It is kept until it is confirmed, and repeated after a resume if it may have been lost.
   *
   * @throws SignalError `message_too_big` for a frame that is longer than the server accepts.
   */
  send(frame: Frame): void {
    if (this.state === 'closed') return;
    // The server discards a frame whose id it has already relayed, so a repeated frame is delivered once.
    const kept = { ...frame, id: this.nextId + 1 };
    const error = this.sizeError(kept);
    if (error) throw error;
    this.nextId++;
    this.kept.push(kept);
    if (this.kept.length > MAX_KEPT_FRAMES) this.kept.shift();
    if (this.isJoined) this.write(kept);
  }

  /** Sends a frame once, without a repetition after a reconnect; drops it while there is no connection. */
  sendUnreliably(frame: Frame): void {
    if (this.isJoined) this.write(frame);
  }

  /** Leaves the room. */
  close(): void {
    this.end(1000, '');
  }

  private write(frame: Frame): void {
    if (this.isJoined && this.lastSeq > this.acked) frame = { ...frame, ack: (this.acked = this.lastSeq) };
    if (this.socket?.readyState === 1) this.socket.send(JSON.stringify(frame));
  }

  private open(): void {
    clearTimeout(this.retryTimer);
    this.retryTimer = undefined;
    this.lastError = undefined;
    const { url, room, WebSocket: Socket = globalThis.WebSocket } = this.options;
    const address = `${url.replace(/^http/, 'ws').replace(/\/$/, '')}/ws/${encodeURIComponent(room)}`;
    let socket: WebSocket;
    try {
      if (!Socket) throw new TypeError('there is no WebSocket class: pass one to connect()');
      socket = this.socket = new Socket(address);
    } catch (error) {
      // A wrong address, or a Content-Security-Policy whose connect-src lacks it. `connect` listens after this.
      queueMicrotask(() => this.fail('no_websocket', `Cannot open ${address}: ${error}`, 1006, ''));
      return;
    }
    let isOpen = false;
    socket.onopen = () => (isOpen = true);
    socket.onmessage = ({ data }) => socket === this.socket && this.handleFrame(data);
    socket.onclose = ({ code, reason, wasClean }) => socket === this.socket && this.handleClose(wasClean === false ? 1006 : code || 1006, reason);
    // Not every environment closes a socket that does not open, and in Node an error without a listener is thrown.
    socket.onerror = () => socket === this.socket && !isOpen && this.handleClose(1006, '');
    // A socket may neither open nor fail.
    this.expectFrame(RESPONSE_TIMEOUT);
  }

  /** Abandons the socket if no frame arrives within `timeout` milliseconds. */
  private expectFrame(timeout: number): void {
    clearTimeout(this.heartbeatTimer);
    this.heartbeatTimer = setTimeout(this.abandon, timeout);
  }

  /** Goes on with another socket: this one is dead, or the device is offline. */
  private abandon = (): void => {
    if (!this.socket) return;
    this.abandoned.push(this.socket);
    this.handleClose(1006, 'No response from the server');
  };

  /** Leaves the room while the page is in the back/forward cache: no script runs there, and the socket would stay open. */
  private suspend = ({ persisted }: PageTransitionEvent): void => {
    const { socket } = this;
    if (!persisted || !socket) return;
    this.resumeToken = undefined;
    this.lastError = undefined;
    this.handleClose(1001, 'The page is hidden');
    socket.close(1000);
  };

  private ping = (): void => {
    this.pinged = this.nextId;
    this.write({ type: 'ping' });
    this.expectFrame(RESPONSE_TIMEOUT);
  };

  private schedulePing(): void {
    clearTimeout(this.heartbeatTimer);
    this.heartbeatTimer = setTimeout(this.ping, PING_INTERVAL);
  }

  private async handleFrame(data: string): Promise<void> {
    const frame: Frame = JSON.parse(data);
    if (frame.limits && /^(auth_success|resumed|limits)$/.test(frame.type)) this.maxBytes = frame.limits.max_message_bytes ?? Infinity;
    if (frame.seq) {
      this.lastSeq = frame.seq;
      if (this.lastSeq - this.acked >= ACK_AFTER && this.pinged === undefined) this.ping();
    }
    if (this.isJoined) this.pinged === undefined ? this.schedulePing() : this.expectFrame(RESPONSE_TIMEOUT);
    switch (frame.type) {
      case 'auth_required':
        if (this.resumeToken) {
          this.write({ type: 'resume', resume_token: this.resumeToken, last_seq: this.lastSeq });
        } else await this.authenticate();
        break;
      case 'auth_success':
        this.clientId = frame.client_id;
        this.username = frame.user;
        this.lastSeq = this.acked = this.replayEnd = 0;
        this.pendingToken = undefined;
        this.storeCredentials(frame);
        this.scheduleRefresh(frame.expires_in);
        break;
      case 'users_in_room':
        // The kept frames were addressed to a membership that no longer exists.
        if (this.state === 'reconnecting') this.kept = [];
        this.setJoined();
        this.handlers.joined(frame.users);
        break;
      case 'resumed':
        this.replayEnd = this.lastSeq + frame.replayed;
        this.storeCredentials(frame);
        this.setJoined();
        if (this.pendingToken) this.sendToken(this.pendingToken);
        this.kept = this.kept.filter((kept) => {
          const error = this.sizeError(kept);
          if (error) this.handlers.error(error);
          return !error;
        });
        this.kept.forEach((kept) => this.write(kept));
        this.handlers.resumed();
        break;
      case 'token_refreshed':
        this.scheduleRefresh(frame.expires_in);
      // falls through
      case 'ice_servers':
        this.storeCredentials(frame);
      // falls through
      case 'limits':
        break;
      case 'pong':
        // A replayed pong answers a ping on the previous socket and confirms nothing that was sent on this one.
        if (frame.seq <= this.replayEnd) break;
        this.kept = this.kept.filter(({ id }) => id > (this.pinged ?? 0));
        this.pinged = undefined;
        this.schedulePing();
        break;
      case 'server_shutdown':
        this.reconnectIn = frame.reconnect_in_ms;
        break;
      case 'error':
        if (frame.code === 'resume_failed') {
          this.resumeToken = undefined;
          await this.authenticate();
        } else if ('retry' in frame || !this.isJoined) {
          this.lastError = frame;
          this.reconnectIn ??= frame.retry_after_ms;
        } else {
          // Sent again after a resume, a refused frame would arrive late, behind those that followed it.
          this.kept = this.kept.filter(({ id }) => id !== frame.id);
          this.handlers.error(new SignalError(frame.code, frame.message));
        }
        break;
      default:
        this.handlers.frame(frame);
    }
  }

  private storeCredentials({ type, iceServers, iceTransportPolicy, resume_token }: Frame): void {
    this.resumeToken = resume_token ?? this.resumeToken;
    const isNewPolicy = type !== 'ice_servers' && iceTransportPolicy !== this.iceTransportPolicy;
    if (isNewPolicy) this.iceTransportPolicy = iceTransportPolicy;
    this.iceServers = iceServers ?? this.iceServers;
    if (iceServers || isNewPolicy) this.handlers.iceServers(this.iceServers, isNewPolicy);
  }

  private async token(): Promise<string | undefined> {
    const { token, getToken } = this.options;
    if (!getToken) return token;
    return (this.tokenRequest ??= Promise.resolve(getToken(this.renew)).finally(() => (this.tokenRequest = undefined)));
  }

  private async authenticate(): Promise<void> {
    const socket = this.socket;
    const features = ['resume', 'peer_state', 'ice', 'limits'];
    try {
      const token = await this.token();
      if (socket !== this.socket) return;
      this.renew = false;
      this.renewable = this.options.getToken && token;
      this.write({ type: 'auth_token', token, clientId: this.clientId, features });
    } catch (cause) {
      if (socket !== this.socket) return;
      const error = tokenError(cause);
      this.handlers.error(error);
      if (error.fatal) return this.end(1008, error.message);
      socket?.close();
      this.reconnectIn ??= error.retryAfter;
      this.handleClose(1006, error.message);
    }
  }

  /**
   * Schedules a refresh one minute before the token expires, or after half of what is left if that is less than two
   * minutes. `seconds` is what the server has told just now.
   */
  private scheduleRefresh(seconds?: number): void {
    const left = this.renewable && (seconds! >= 0 ? seconds! * 1000 : lifetimeOf(this.renewable));
    if (!left) return clearTimeout(this.refreshTimer);
    this.refreshIn(Math.max(1_000, left - Math.min(60_000, left / 2)));
  }

  private refreshIn(delay: number): void {
    clearTimeout(this.refreshTimer);
    // A larger delay overflows the timer, which then fires at once.
    const timeout = Math.min(delay, 2 ** 31 - 1);
    this.refreshTimer = setTimeout(async () => {
      try {
        const token = await this.options.getToken!(true);
        if (this.state === 'closed') return;
        this.renewable = token;
        this.sendToken(token);
        this.scheduleRefresh();
      } catch (cause) {
        if (this.state === 'closed') return;
        const error = tokenError(cause, false);
        this.handlers.error(error);
        this.refreshIn(error.retryAfter ?? REFRESH_RETRY_DELAY);
      }
    }, timeout);
  }

  private sendToken(token: string): void {
    this.pendingToken = this.isJoined ? undefined : token;
    this.sendUnreliably({ type: 'auth_token', token });
  }

  private sizeError(frame: Frame): SignalError | undefined {
    const bytes = encoder.encode(JSON.stringify(frame)).length + ACK_BYTES;
    if (bytes <= this.maxBytes) return undefined;
    return new SignalError('message_too_big', `A message of ${bytes} bytes is longer than the ${this.maxBytes} that the server accepts`);
  }

  private setJoined(): void {
    for (const socket of this.abandoned.splice(0)) socket.close();
    this.isJoined = true;
    this.attempt = 0;
    this.hasRenewed = false;
    this.pinged = undefined;
    this.schedulePing();
    this.setState({ state: 'connected' });
  }

  private setState(event: StateEvent): void {
    this.state = event.state;
    this.handlers.state(event);
  }

  /** Decides what the end of a socket means: a reconnect, with or without a new token, or the end of the session. */
  private handleClose(code: number, reason: string): void {
    if (this.state === 'closed') return;
    clearTimeout(this.heartbeatTimer);
    this.socket = undefined;
    this.isJoined = false;
    this.pinged = undefined;
    const last = this.lastError;
    if (this.options.getToken && (TOKEN_REASONS.test(reason) || TOKEN_CODES.test(last?.code)) && !this.hasRenewed) {
      this.renew = this.hasRenewed = true;
      this.resumeToken = undefined;
    } else if (!(last?.retry ?? (RETRIED_CODES.has(code) || this.tokenRequest))) {
      const message = last?.message ?? (reason || `Closed with ${code}`);
      return this.fail(last?.code ?? 'closed', message, code, reason);
    }
    const retryIn = this.reconnectIn ?? retryDelay(this.attempt++);
    this.reconnectIn = undefined;
    this.retryTimer = setTimeout(() => this.open(), retryIn);
    const state = this.state === 'connecting' ? 'connecting' : 'reconnecting';
    this.setState({ state, retryIn, code, reason });
  }

  /** Reconnects without a delay, or checks the socket, when the network or the page comes back. */
  private wake = (): void => {
    if (globalThis.document?.visibilityState === 'hidden' || this.state === 'closed') return;
    if (this.retryTimer) this.open();
    // While the page was frozen the socket may have failed without a close event.
    else if (this.isJoined && this.pinged === undefined) this.ping();
  };

  private fail(error: string, message: string, code: number, reason: string): void {
    if (this.state === 'closed') return;
    this.handlers.error(new SignalError(error, message, true));
    this.end(code, reason);
  }

  private end(code: number, reason: string): void {
    if (this.state === 'closed') return;
    globalThis.removeEventListener?.('online', this.wake);
    globalThis.removeEventListener?.('pageshow', this.wake);
    globalThis.removeEventListener?.('pagehide', this.suspend);
    globalThis.removeEventListener?.('offline', this.abandon);
    globalThis.document?.removeEventListener('visibilitychange', this.wake);
    for (const timer of [this.heartbeatTimer, this.retryTimer, this.refreshTimer]) clearTimeout(timer);
    this.isJoined = false;
    this.setState({ state: 'closed', code, reason });
    this.socket?.close(1000);
    this.socket = undefined;
    for (const socket of this.abandoned.splice(0)) socket.close();
  }
}

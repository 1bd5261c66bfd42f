// One membership of one room over as many WebSockets as it takes (docs/build/protocol.md). Knows no WebRTC.

/**
 * What went wrong. `code` is the server's word, or one of ours: `closed`, `no_token`, `media_failed`; from `signIn`
 * `unauthorized`, `unreachable`, `http_` and the status.
 */
export class SignalError extends Error {
  /** Milliseconds that the server asks to wait. */
  retryAfter?: number;

  constructor(
    readonly code: string,
    message: string,
    /** The session is over; coming back makes no sense as it is. */
    readonly fatal = false,
  ) {
    super(message);
    this.name = 'SignalError';
  }
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

type Frame = Record<string, any> & { type: string };

/** @internal What a session hears of its membership. */
export interface SignalHandlers {
  /** We sit down anew, among these. */
  joined(members: Member[]): void;
  /** We go on where we were. */
  resumed(): void;
  frame(frame: Frame): void;
  state(event: StateEvent): void;
  error(error: SignalError): void;
  iceServers(servers: RTCIceServer[]): void;
}

const PING_EVERY = 15_000;
const PONG_WITHIN = 10_000;
/** After a refresh that failed. */
const REFRESH_AGAIN = 15_000;
const FIRST_PAUSE = 300;
const LONGEST_PAUSE = 15_000;
/** Frames that wait for a socket, and that may have to be said again. */
const MOST_KEPT = 200;
/** Unacknowledged frames that make us say so on our own. */
const ACK_AFTER = 32;
/** Closes after which a token makes the difference: once, a fresh one is tried. */
const TOKEN_REASONS = /^(Invalid token|Token expired)$/;
const RETRIED = new Set([1001, 1005, 1006, 1011, 1012, 1013, 1014]);

/** How long to wait before attempt `number`: anything up to twice as long each time. */
export const pauseBefore = (number: number, random = Math.random): number =>
  random() * Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** number);

/** When a JWT runs out, in milliseconds since the epoch. */
export function expiryOf(token: string): number | undefined {
  try {
    const claims = token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/');
    const { exp } = JSON.parse(atob(claims));
    return typeof exp === 'number' ? exp * 1000 : undefined;
  } catch {
    return undefined;
  }
}

/** Why `getToken` gave none; what it throws of our own kind it may call fatal. */
const noToken = (error: unknown, mayEnd = true): SignalError =>
  error instanceof SignalError && (mayEnd || !error.fatal) ? error : new SignalError('no_token', `getToken: ${error}`);

/** @internal */
export class Signal {
  clientId?: string;
  username?: string;
  iceServers: RTCIceServer[] = [];
  state: State = 'connecting';

  private socket: WebSocket | undefined;
  private resumeToken?: string;
  private lastSeq = 0;
  private acked = 0;
  private attempt = 0;
  private nextId = 0;
  /** Said and perhaps not heard, and what waits for a socket. */
  private kept: Frame[] = [];
  /** How many of `kept` the pong that is awaited answers for. */
  private pinged: number | undefined;
  /** What has come by then is of the socket before. */
  private replayedUntil = 0;
  /** Given up, and not closed: a Close that the server reads before our resume would be a farewell. */
  private silent: WebSocket[] = [];
  /** A token that could not be shown when it came. */
  private unshown: string | undefined;
  private renew = false;
  private hasRenewed = false;
  private isSeated = false;
  private lastError: Frame | undefined;
  private reconnectIn: number | undefined;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private beat: ReturnType<typeof setTimeout> | undefined;
  private refresh: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private options: SignalOptions,
    private handlers: SignalHandlers,
  ) {
    if (options.clientId) this.clientId = options.clientId;
    globalThis.addEventListener?.('online', this.now);
    globalThis.addEventListener?.('pageshow', this.now);
    globalThis.document?.addEventListener('visibilitychange', this.now);
    this.open();
  }

  /** Says something to `to`, or to everyone; in order, also over a reconnect. */
  say(frame: Frame): void {
    if (this.state === 'closed') return;
    // An id makes it safe to say again what may have arrived.
    const kept = { ...frame, id: ++this.nextId };
    this.kept.push(kept);
    if (this.kept.length > MOST_KEPT) {
      this.kept.shift();
      if (this.pinged) this.pinged--;
    }
    if (this.isSeated) this.send(kept);
  }

  /** Says something that is not worth a repetition. */
  mention(frame: Frame): void {
    if (this.isSeated) this.send(frame);
  }

  close(): void {
    this.end(1000, '');
  }

  private send(frame: Frame): void {
    if (this.isSeated && this.lastSeq > this.acked) frame = { ...frame, ack: (this.acked = this.lastSeq) };
    if (this.socket?.readyState === 1) this.socket.send(JSON.stringify(frame));
  }

  private open(): void {
    clearTimeout(this.retry);
    this.retry = undefined;
    this.lastError = undefined;
    const { url, room, WebSocket: Socket = globalThis.WebSocket } = this.options;
    const address = `${url.replace(/^http/, 'ws').replace(/\/$/, '')}/ws/${encodeURIComponent(room)}`;
    const socket = (this.socket = new Socket(address));
    socket.onmessage = ({ data }) => socket === this.socket && this.heard(data);
    socket.onclose = ({ code, reason }) => socket === this.socket && this.lost(code, reason);
    // A socket that neither opens nor fails would be waited for without end.
    this.watch(PONG_WITHIN);
  }

  /** Gives the socket up when nothing is heard for so long. */
  private watch(within: number): void {
    clearTimeout(this.beat);
    this.beat = setTimeout(() => {
      const socket = this.socket;
      if (socket) this.silent.push(socket);
      this.lost(1006, 'Nothing heard');
    }, within);
  }

  private ping = (): void => {
    this.pinged = this.kept.length;
    this.send({ type: 'ping' });
    this.watch(PONG_WITHIN);
  };

  private rest(): void {
    clearTimeout(this.beat);
    this.beat = setTimeout(this.ping, PING_EVERY);
  }

  private async heard(data: string): Promise<void> {
    const frame: Frame = JSON.parse(data);
    if (frame.seq) {
      this.lastSeq = frame.seq;
      if (this.lastSeq - this.acked >= ACK_AFTER && this.pinged === undefined) this.ping();
    }
    if (this.isSeated) this.pinged === undefined ? this.rest() : this.watch(PONG_WITHIN);
    switch (frame.type) {
      case 'auth_required':
        if (this.resumeToken) {
          this.send({ type: 'resume', resume_token: this.resumeToken, last_seq: this.lastSeq });
        } else await this.introduce();
        break;
      case 'auth_success':
        this.clientId = frame.client_id;
        this.username = frame.user;
        this.lastSeq = this.acked = this.replayedUntil = 0;
        this.unshown = undefined;
        this.takes(frame);
        break;
      case 'users_in_room':
        // What was said in another life is no use to anybody.
        if (this.state === 'reconnecting') this.kept = [];
        this.seated();
        this.handlers.joined(frame.users);
        break;
      case 'resumed':
        this.replayedUntil = this.lastSeq + frame.replayed;
        this.takes(frame);
        this.seated();
        if (this.unshown) this.shows(this.unshown);
        this.kept.forEach((said) => this.send(said));
        this.handlers.resumed();
        break;
      case 'token_refreshed':
      case 'ice_servers':
        this.takes(frame);
        break;
      case 'pong':
        // One that was lost comes again, and says nothing of what was said since.
        if (frame.seq <= this.replayedUntil) break;
        this.kept.splice(0, this.pinged ?? 0);
        this.pinged = undefined;
        this.rest();
        break;
      case 'server_shutdown':
        this.reconnectIn = frame.reconnect_in_ms;
        break;
      case 'error':
        if (frame.code === 'resume_failed') {
          this.resumeToken = undefined;
          await this.introduce();
        } else if ('retry' in frame || !this.isSeated) {
          this.lastError = frame;
          this.reconnectIn ??= frame.retry_after_ms;
        } else this.handlers.error(new SignalError(frame.code, frame.message));
        break;
      default:
        this.handlers.frame(frame);
    }
  }

  private takes({ iceServers, resume_token }: Frame): void {
    this.resumeToken = resume_token ?? this.resumeToken;
    if (iceServers) this.handlers.iceServers((this.iceServers = iceServers));
  }

  private async token(): Promise<string | undefined> {
    const { token, getToken } = this.options;
    return getToken ? getToken(this.renew) : token;
  }

  private async introduce(): Promise<void> {
    const socket = this.socket;
    const features = ['resume', 'peer_state', 'ice'];
    try {
      const token = await this.token();
      if (socket !== this.socket) return;
      this.renew = false;
      this.send({ type: 'auth_token', token, clientId: this.clientId, features });
      this.keepFresh(token);
    } catch (error) {
      if (socket !== this.socket) return;
      const why = noToken(error);
      this.handlers.error(why);
      if (why.fatal) return this.end(1008, why.message);
      socket?.close();
      this.reconnectIn ??= why.retryAfter;
      this.lost(1006, why.message);
    }
  }

  /** Shows a new token a minute before the old one runs out. */
  private keepFresh(token: string | undefined): void {
    const expiry = this.options.getToken && token && expiryOf(token);
    if (!expiry) return clearTimeout(this.refresh);
    const left = expiry - Date.now();
    this.refreshIn(Math.max(1_000, left - Math.min(60_000, left / 2)));
  }

  private refreshIn(pause: number): void {
    clearTimeout(this.refresh);
    this.refresh = setTimeout(async () => {
      try {
        const token = await this.options.getToken!(true);
        if (this.state === 'closed') return;
        this.shows(token);
        this.keepFresh(token);
      } catch (error) {
        if (this.state === 'closed') return;
        const why = noToken(error, false);
        this.handlers.error(why);
        this.refreshIn(why.retryAfter ?? REFRESH_AGAIN);
      }
    }, Math.min(pause, 2 ** 31 - 1));
  }

  private shows(token: string): void {
    this.unshown = this.isSeated ? undefined : token;
    this.mention({ type: 'auth_token', token });
  }

  private seated(): void {
    for (const socket of this.silent.splice(0)) socket.close();
    this.isSeated = true;
    this.attempt = 0;
    this.hasRenewed = false;
    this.pinged = undefined;
    this.rest();
    this.become({ state: 'connected' });
  }

  private become(event: StateEvent): void {
    this.state = event.state;
    this.handlers.state(event);
  }

  private lost(code: number, reason: string): void {
    if (this.state === 'closed') return;
    clearTimeout(this.beat);
    this.socket = undefined;
    this.isSeated = false;
    this.pinged = undefined;
    const error = this.lastError;
    const mayRenew = !!this.options.getToken && TOKEN_REASONS.test(reason) && !this.hasRenewed;
    if (mayRenew) {
      this.renew = this.hasRenewed = true;
      this.resumeToken = undefined;
    } else if (!(error?.retry ?? RETRIED.has(code))) {
      const why = new SignalError(error?.code ?? 'closed', error?.message ?? (reason || `Closed with ${code}`), true);
      this.handlers.error(why);
      return this.end(code, reason);
    }
    const pause = this.reconnectIn ?? pauseBefore(this.attempt++);
    this.reconnectIn = undefined;
    this.retry = setTimeout(() => this.open(), pause);
    const state = this.state === 'connecting' ? 'connecting' : 'reconnecting';
    this.become({ state, retryIn: pause, code, reason });
  }

  /** The network, or the page, is back: no reason to wait. */
  private now = (): void => {
    if (globalThis.document?.visibilityState === 'hidden' || this.state === 'closed') return;
    if (this.retry) this.open();
    // The socket may have died in our sleep, and nobody told us.
    else if (this.isSeated && this.pinged === undefined) this.ping();
  };

  private end(code: number, reason: string): void {
    if (this.state === 'closed') return;
    globalThis.removeEventListener?.('online', this.now);
    globalThis.removeEventListener?.('pageshow', this.now);
    globalThis.document?.removeEventListener('visibilitychange', this.now);
    for (const timer of [this.beat, this.retry, this.refresh]) clearTimeout(timer);
    this.isSeated = false;
    this.become({ state: 'closed', code, reason });
    this.socket?.close(1000);
    this.socket = undefined;
    for (const socket of this.silent.splice(0)) socket.close();
  }
}

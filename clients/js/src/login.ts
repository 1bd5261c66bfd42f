import { SignalError } from './error.js';
import { lifetimeOf } from './token.js';

export interface Account {
  /** The base URL of the server, as for `connect`. */
  url: string;
  username: string;
  password: string;
}

/** A token with less than this left, in milliseconds, is replaced before it is used. */
const MIN_LIFETIME = 10_000;

/**
 * Makes a `getToken` for an account. It logs in when the first token is needed, refreshes the token while it is valid,
 * and logs in again when a refresh is refused.
 *
 * It throws a {@link SignalError}: `fatal` if the server refuses the login, with `retryAfter` if the server asks for a delay.
 */
export function signIn({ url, username, password }: Account): (renew: boolean) => Promise<string> {
  let token: string | undefined;
  let expiry = 0;
  const requestToken = async (path: string, init: RequestInit): Promise<string> => {
    const address = url.replace(/^ws/, 'http').replace(/\/$/, '') + path;
    let response: Response;
    try {
      response = await fetch(address, { method: 'POST', cache: 'no-store', ...init });
    } catch {
      throw new SignalError('unreachable', `Cannot reach ${address}`);
    }
    const { status } = response;
    const body = await response.json().catch(() => ({}));
    if (response.ok) {
      token = body.access_token as string;
      const lifetime = body.expires_in >= 0 ? body.expires_in * 1000 : lifetimeOf(token);
      expiry = Date.now() + (lifetime ?? Infinity);
      return token;
    }
    const message = typeof body.detail === 'string' ? body.detail : `${path} answered ${status}`;
    const error = new SignalError(status === 401 ? 'unauthorized' : `http_${status}`, message, status < 500 && status !== 429);
    error.retryAfter = Number(response.headers.get('Retry-After')) * 1000 || undefined;
    throw error;
  };
  return async (renew) => {
    const left = expiry - Date.now();
    if (token && !renew && left > MIN_LIFETIME) return token;
    try {
      if (left > 0) return await requestToken('/auth/refresh', { headers: { Authorization: `Bearer ${token}` } });
    } catch (error) {
      if ((error as SignalError).code !== 'unauthorized') throw error;
    }
    const headers = { 'Content-Type': 'application/json' };
    return requestToken('/auth/login', { headers, body: JSON.stringify({ username, password }) });
  };
}

import { expiryOf, SignalError } from './signal.js';

export interface Account {
  /** Where the server is, as for `connect`. */
  url: string;
  username: string;
  password: string;
}

/** A token with less than this left, in milliseconds, is not worth showing. */
const TOO_SHORT = 10_000;

/**
 * A `getToken` for an account: logs in when a token is first needed, refreshes it while it is good, and logs in again
 * where it is not.
 *
 * What it throws is a {@link SignalError}: `fatal` where the server refused, with `retryAfter` where it asked to wait.
 */
export function signIn({ url, username, password }: Account): (renew: boolean) => Promise<string> {
  let token: string | undefined;
  const ask = async (path: string, init: RequestInit): Promise<string> => {
    const address = url.replace(/^ws/, 'http').replace(/\/$/, '') + path;
    let answer: Response;
    try {
      answer = await fetch(address, { method: 'POST', cache: 'no-store', ...init });
    } catch {
      throw new SignalError('unreachable', `Cannot reach ${address}`);
    }
    const { status } = answer;
    const body = await answer.json().catch(() => ({}));
    if (answer.ok) return body.access_token;
    const why = typeof body.detail === 'string' ? body.detail : `${path} answered ${status}`;
    const error = new SignalError(status === 401 ? 'unauthorized' : `http_${status}`, why, status < 500 && status !== 429);
    error.retryAfter = Number(answer.headers.get('Retry-After')) * 1000 || undefined;
    throw error;
  };
  return async (renew) => {
    const left = token ? (expiryOf(token) ?? Infinity) - Date.now() : 0;
    if (token && !renew && left > TOO_SHORT) return token;
    try {
      if (left > 0) return (token = await ask('/auth/refresh', { headers: { Authorization: `Bearer ${token}` } }));
    } catch (error) {
      if ((error as SignalError).code !== 'unauthorized') throw error;
    }
    const headers = { 'Content-Type': 'application/json' };
    return (token = await ask('/auth/login', { headers, body: JSON.stringify({ username, password }) }));
  };
}

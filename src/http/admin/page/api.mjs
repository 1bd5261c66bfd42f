// Requests to the admin API, with the token that the administrator has entered.

const REQUEST_TIMEOUT = 10_000;
/** The key of the token in the session storage, which belongs to one tab. */
const TOKEN_KEY = 'signaling-admin-token';

let token = sessionStorage.getItem(TOKEN_KEY) ?? '';
let handleUnauthorized = () => {};

export const isSignedIn = () => token !== '';

export function storeToken(value) {
  token = value;
  sessionStorage.setItem(TOKEN_KEY, token);
}

export function removeToken() {
  token = '';
  sessionStorage.removeItem(TOKEN_KEY);
}

/** Calls `handler` when the server refuses the current token. */
export function onUnauthorized(handler) {
  handleUnauthorized = handler;
}

/** Sends a request and returns the response. Throws an Error with a message for the administrator, and the HTTP status if there is one. */
export async function request(method, path, body) {
  const used = token;
  let response;
  try {
    // fetch() throws for a token that no header can hold. Without a token the server answers 401.
    const headers = { authorization: `Bearer ${/^[!-~]*$/.test(used) ? used : ''}`, ...(body && { 'content-type': 'application/json' }) };
    const signal = AbortSignal.timeout(REQUEST_TIMEOUT);
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: 'no-store', credentials: 'omit', signal });
  } catch {
    throw new Error('The server does not answer.');
  }
  if (response.ok) return response;
  const { detail } = await response.json().catch(() => ({}));
  const message = Array.isArray(detail) ? detail.map(({ msg }) => msg).join('; ') : detail;
  if (response.status === 401 && used === token) handleUnauthorized('The server does not accept this token. Use the value of ADMIN_TOKEN.');
  throw Object.assign(new Error(message ?? `The server answered with status ${response.status}.`), { status: response.status });
}

export const getJson = async (path) => (await request('GET', path)).json();
/** Relative to this module, so that the page also works below a path of a proxy. */
export const apiPath = (path) => new URL(`api/${path}`, import.meta.url).href;
export const roomPath = (id, rest = '') => apiPath(`rooms/${encodeURIComponent(id)}${rest}`);

/** Turns a 404 into undefined. */
export const orUndefined = (response) => response.catch((error) => {
  if (error.status !== 404) throw error;
});

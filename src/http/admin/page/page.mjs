// The administrator's page: signs in, polls the admin API every two seconds, and shows the overview or one room.

import { closeDialog, onAction, openDialog } from './actions.mjs';
import { apiPath, getJson, isSignedIn, onUnauthorized, orUndefined, removeToken, request, roomPath, storeToken } from './api.mjs';
import { byId, setText } from './dom.mjs';
import { parseMetrics } from './metrics.mjs';
import { clearOverview, loadRooms, onRoomsQuery, showMetrics, showRooms, showStatus, turnServers } from './overview.mjs';
import { MAX_RANGE } from './plot.mjs';
import { clearRoom, openRoom, showRoom } from './room.mjs';
import { clearRules, showRules } from './rules.mjs';

const POLL_INTERVAL = 2_000;

/** Parsed metrics of the last five minutes, oldest first. */
let snapshots = [];
/** The room on view; undefined for the overview. */
let roomId;
/** The node that answered last; undefined without a cluster. */
let node;
/** Counts the polls; the responses of an earlier one are ignored. */
let round = 0;
let timer;

// --- polling ---------------------------------------------------------------------------------------

/** Requests and shows the current view, and schedules the next poll. Does nothing while the page is hidden. */
async function poll() {
  clearTimeout(timer);
  round += 1;
  const current = round;
  if (!isSignedIn() || document.hidden) return;
  try {
    const view = await load(roomId);
    if (current === round) show(view);
  } catch (error) {
    if (current !== round) return;
    if (isSignedIn()) byId('error').textContent = error.message;
  }
  if (current === round) timer = setTimeout(poll, POLL_INTERVAL);
}

/** In place of what could not be loaded. */
const FAILED = Symbol('failed');

/**
 * Requests what the current view shows. The status comes first and alone: a wrong token is refused, and logged, once. Each other
 * request may fail by itself, with a sentence in `failures`.
 */
async function load(id) {
  const status = await getJson(apiPath('status'));
  const failures = [];
  const attempt = (what, response) => response.catch((error) => {
    if (!isSignedIn()) throw error;
    failures.push(`${what}: ${error.message}`);
    return FAILED;
  });
  const timeline = () => orUndefined(request('GET', roomPath(id, '/timeline'))
    .then(async (response) => ({ ...await response.json(), now: Date.parse(response.headers.get('date')) })));
  const [metrics, rules, ...rest] = await Promise.all([
    attempt('Metrics', request('GET', apiPath('metrics')).then((response) => response.text())),
    attempt('Rules', getJson(apiPath('rules'))),
    ...(id === undefined ? [attempt('Rooms', loadRooms()), attempt('Closed rooms', getJson(apiPath('closed')))]
      : [attempt('Members', orUndefined(getJson(roomPath(id)))), attempt('Timeline', timeline())]),
  ]);
  return { metrics, status, rules, rest, failures };
}

function show({ metrics, status, rules, rest, failures }) {
  const at = Date.now();
  showViews(true);
  // Behind a load balancer several nodes may answer. Their metrics cannot be combined, and each keeps its own part of a timeline.
  const isMixed = node !== undefined && status.node !== node;
  node = status.node;
  if (isMixed) snapshots = [];
  if (metrics !== FAILED) snapshots = [...snapshots.filter((snapshot) => at - snapshot.at < MAX_RANGE), { at, ...parseMetrics(metrics) }];
  if (isMixed) failures.push(`Several nodes answer in turn, now ${node}: open this page at the address of one node.`);
  setText(byId('error'), failures.join(' '));
  const newest = snapshots.at(-1);
  showStatus(status, newest);
  // What could not be loaded stays as it was.
  if (newest) showMetrics(snapshots);
  if (rules !== FAILED) showRules(rules.rules, roomId);
  if (rest.includes(FAILED)) return;
  if (roomId === undefined) showRooms(...rest);
  else showRoom(...rest, turnServers(newest).filter(({ isUp }) => !isUp).map(({ url }) => url));
}

// --- signing in ------------------------------------------------------------------------------------

function showViews(isAllowed) {
  for (const element of document.querySelectorAll('[data-signed-in]')) element.hidden = !isAllowed;
  byId('signIn').hidden = isAllowed;
  byId('overview').hidden = !isAllowed || roomId !== undefined;
  byId('room').hidden = !isAllowed || roomId === undefined;
}

function signOut(reason = '') {
  clearTimeout(timer);
  round += 1;
  removeToken();
  snapshots = [];
  clearOverview();
  clearRoom();
  clearRules();
  closeDialog();
  showViews(false);
  byId('notice').textContent = '';
  byId('error').textContent = reason;
  byId('token').focus();
}

byId('signIn').addEventListener('submit', (event) => {
  event.preventDefault();
  storeToken(byId('token').value.trim());
  byId('token').value = '';
  byId('error').textContent = '';
  poll();
});
byId('signOut').addEventListener('click', () => signOut());

// --- navigation ------------------------------------------------------------------------------------

/** Shows the view that the fragment of the address names: a room, or the overview. */
function navigate() {
  let id;
  try {
    id = decodeURIComponent(/^#rooms\/(.+)$/s.exec(location.hash)?.[1] ?? '');
  } catch {
    id = ''; // an invalid percent encoding
  }
  roomId = id || undefined;
  openRoom(id);
  byId('notice').textContent = '';
  document.title = id ? `${id} – Signaling server` : 'Signaling server';
  if (snapshots.length) showViews(true);
  if (id) byId('roomTitle').focus();
  poll();
}

byId('drain').addEventListener('click', () => openDialog({
  title: 'Drain this server',
  text: 'New clients are refused, connected clients get a time at which to reconnect, and the process ends. Type drain to confirm.',
  fields: [{ name: 'confirmation', label: 'Confirm', pattern: '\\s*drain\\s*', required: true, autocomplete: 'off', title: 'drain' }],
  button: 'Drain', isDanger: true, message: 'Draining has started.',
  action: () => request('POST', apiPath('drain')),
}));

onAction(poll);
onRoomsQuery(poll);
onUnauthorized(signOut);
window.addEventListener('hashchange', navigate);
document.addEventListener('visibilitychange', poll);
showViews(false);
byId('signIn').hidden = isSignedIn();
navigate();

// The overview: server status, metrics, the list of rooms, and recent warnings.

import { apiPath, request } from './api.mjs';
import { byId, h, setText, showBadges, syncChildren } from './dom.mjs';
import { bytes, duration, formatOf, percent, plain, seconds } from './format.mjs';
import { gauge, labelsOf, linesOf, plottableNames, quantile, rate, valueOf } from './metrics.mjs';
import { plot } from './plot.mjs';

/** The open rooms of one page. */
const PAGE_ROWS = 200;
/** How long nothing is typed before the server searches, in milliseconds. */
const SEARCH_DELAY = 200;
const DAY = 86_400;
/** The certificate badge turns red when fewer days are left. */
const CERTIFICATE_WARNING_DAYS = 14;

/** The default plots; one without values is left out. */
const PLOTS = [
  { title: 'Members', lines: [['', gauge('signaling_members')]], format: plain },
  { title: 'Connections', lines: [['', gauge('signaling_connections')]], format: plain },
  { title: 'Rooms', lines: [['', gauge('signaling_rooms')]], format: plain },
  { title: 'Messages per second', lines: [['', rate('signaling_messages_total')]], format: plain },
  { title: 'Errors per second', lines: [['', rate('signaling_errors_total')]], format: plain },
  { title: 'Joins per second', lines: [['', rate('signaling_joins_total')]], format: plain },
  { title: 'Closes per second', lines: [['', rate('signaling_session_ends_total')]], format: plain },
  { title: 'Routing', lines: histogramLines('signaling_routing_seconds'), format: seconds },
  { title: 'Ping round trip', lines: histogramLines('signaling_ping_rtt_seconds'), format: seconds },
  { title: 'Frames in send queues', lines: [['', gauge('signaling_send_queue_frames')]], format: plain },
  { title: 'Logins per second', lines: [['', rate('signaling_logins_total')]], format: plain },
  { title: 'TURN credentials per second', lines: [['', rate('signaling_turn_credentials_total')]], format: plain },
  { title: 'CPU, of one core', lines: [['', rate('process_cpu_seconds_total')]], format: percent },
  { title: 'Memory', lines: [['', gauge('process_resident_memory_bytes')]], format: bytes },
  { title: 'Open files', lines: [['', gauge('process_open_fds')]], format: plain },
];

function histogramLines(family) {
  return [['p50', quantile(family, 0.5)], ['p99', quantile(family, 0.99)]];
}

// --- status and metrics ----------------------------------------------------------------------------

export function showStatus({ version, node, uptime_seconds: uptime, is_cluster_up: isUp, is_draining: isDraining, recent }, newest) {
  const nodes = newest && valueOf(newest, 'signaling_cluster_nodes');
  showBadges(byId('serverInfo'), [
    { key: 'version', text: `Version ${version}` },
    { key: 'uptime', text: `Up ${duration(uptime)}` },
    node !== undefined && { key: 'node', text: `Node ${node}` },
    isUp !== undefined && { key: 'cluster', text: isUp ? `Cluster up${nodes ? `, ${nodes} nodes` : ''}` : 'Cluster cannot be reached', className: isUp ? 'good' : 'bad' },
    isDraining && { key: 'draining', text: 'Draining', className: 'bad' },
  ]);
  const lines = recent.map((line, index) => ({ ...line, index })).reverse();
  const create = () => h('li', {}, h('time'), h('strong'), h('bdi'), h('bdi', { class: 'quiet' }));
  syncChildren(byId('logLines'), lines, ({ at, index, message }) => `${at} ${index} ${message}`, create, (li, line) => {
    const [time, level, message, fields] = li.children;
    setText(time, new Date(line.at).toLocaleString());
    setText(level, line.level);
    level.className = line.level === 'ERROR' ? 'bad' : '';
    setText(message, line.message);
    setText(fields, Object.entries(line.fields).map(([name, value]) => `${name}=${value}`).join(' '));
  });
  setText(byId('logNote'), recent.length ? '' : 'None since the start.');
}

/** The TURN servers of a snapshot: URL, whether it relays, and its latency in seconds. */
export function turnServers(snapshot) {
  return (snapshot?.samples.get('signaling_turn_up') ?? []).map((series) => (
    { url: labelsOf(series).url ?? '', isUp: series.value === 1, latency: valueOf(snapshot, 'signaling_turn_latency_seconds', series.labels) }));
}

let snapshots = [];

export function showMetrics(all) {
  snapshots = all;
  const newest = snapshots.at(-1);
  const expiry = valueOf(newest, 'signaling_tls_certificate_expiry_timestamp_seconds');
  const days = Math.floor((expiry - Date.now() / 1000) / DAY);
  showBadges(byId('health'), [
    expiry !== undefined && { key: 'certificate', text: days < 0 ? 'Certificate has expired' : `Certificate: ${days} days left`, className: days < CERTIFICATE_WARNING_DAYS ? 'bad' : 'good' },
    ...turnServers(newest).map(({ url, isUp, latency }) => (
      { key: `turn ${url}`, text: `${url} ${isUp ? 'relays' : 'does not relay'}${latency === undefined ? '' : `, ${seconds(latency)}`}`, className: isUp ? 'good' : 'bad' })),
  ]);
  syncChildren(byId('extraMetric'), ['', ...plottableNames(newest)], (name) => name, () => h('option'), (option, name) => {
    option.value = name;
    setText(option, name || 'none');
  });
  const extra = byId('extraMetric').value;
  const plots = [...PLOTS, ...(extra ? [{ title: extra, lines: linesOf(extra, newest), format: formatOf(extra) }] : [])];
  byId('plots').replaceChildren(...plots.map((it) => plot(it, snapshots)).filter(Boolean));
}
byId('extraMetric').addEventListener('change', () => showMetrics(snapshots));

// --- rooms -----------------------------------------------------------------------------------------

/** What the last poll has loaded: open rooms of one page, and closed ones. */
let rooms = [];
/** How many open rooms match the search, in all pages. */
let total = 0;
let sort = { by: 'connected_users', isDescending: true };
/** The cursors of the pages up to the one on view; the first page has none. */
let cursors = [undefined];
/** The cursor of the page after it. */
let next;
let handleQuery = () => {};

/** Calls `handler` when the administrator asks for other rooms. */
export function onRoomsQuery(handler) {
  handleQuery = handler;
}

const searchText = () => byId('search').value.trim();

/** Requests the page of open rooms that is on view. */
export async function loadRooms() {
  const query = new URLSearchParams({ limit: PAGE_ROWS, sort: sort.by === 'connected_users' ? sort.by : 'room_id' });
  if (searchText()) query.set('search', searchText());
  if (cursors.at(-1) !== undefined) query.set('after', cursors.at(-1));
  const response = await request('GET', apiPath(`rooms?${query}`));
  const link = /^<\?([^>]*)>; rel="next"$/.exec(response.headers.get('link') ?? '');
  return {
    rooms: await response.json(),
    total: Number(response.headers.get('x-total-count')),
    next: link ? new URLSearchParams(link[1]).get('after') : undefined,
  };
}

/** Shows a page of the open rooms, and with the last one the closed rooms whose timeline is still kept. */
export function showRooms(page, closed) {
  ({ total, next } = page);
  const openIds = new Set(page.rooms.map(({ room_id: id }) => id));
  rooms = [...page.rooms, ...(next === undefined ? closed.filter(({ room_id: id }) => !openIds.has(id)) : [])];
  renderRooms();
}

export function clearOverview() {
  [rooms, total, cursors, next] = [[], 0, [undefined], undefined];
  for (const id of ['serverInfo', 'health', 'plots', 'rooms', 'logLines']) byId(id).replaceChildren();
}

/** Shows the first page that the search and the order ask for: at once as far as it is loaded, the rest when it comes. */
function startQuery() {
  cursors = [undefined];
  renderRooms();
  handleQuery();
}

function renderRooms() {
  const pattern = searchText().toLowerCase();
  const matching = rooms.filter(({ room_id: id }) => id.toLowerCase().includes(pattern));
  const { by, isDescending } = sort;
  const compare = (one, other) => ((one[by] ?? 0) < (other[by] ?? 0) ? -1 : Number((one[by] ?? 0) > (other[by] ?? 0)));
  matching.sort((one, other) => (isDescending ? -1 : 1) * compare(one, other) || (one.room_id < other.room_id ? -1 : 1));
  const create = () => h('tr', {}, h('th', { scope: 'row' }, h('a', {}, h('bdi'))), h('td'), h('td'), h('td'));
  syncChildren(byId('rooms'), matching, ({ room_id: id }) => id, create, (row, it) => {
    const [name, members, capacity, state] = row.children;
    name.firstChild.href = `#rooms/${encodeURIComponent(it.room_id)}`;
    setText(name.firstChild.firstChild, it.room_id);
    const isClosed = it.closed_for_seconds !== undefined;
    setText(members, isClosed ? '–' : plain(it.connected_users));
    setText(capacity, isClosed ? '–' : plain(it.capacity));
    setText(state, isClosed ? `closed ${duration(it.closed_for_seconds)} ago` : it.is_locked ? 'locked' : it.connected_users >= it.capacity ? 'full' : 'open');
  });
  for (const header of document.querySelectorAll('[data-sort]')) {
    const isSorted = header.dataset.sort === by;
    header.parentElement.setAttribute('aria-sort', isSorted ? (isDescending ? 'descending' : 'ascending') : 'none');
  }
  const isPaged = next !== undefined || cursors.length > 1;
  byId('roomPages').hidden = !isPaged;
  byId('previousRooms').disabled = cursors.length === 1;
  byId('nextRooms').disabled = next === undefined;
  const first = (cursors.length - 1) * PAGE_ROWS;
  const open = matching.filter(({ closed_for_seconds: closed }) => closed === undefined).length;
  const count = isPaged ? `Rooms ${plain(first + 1)} to ${plain(first + open)} of ${plain(total)}` : `${plain(matching.length)} of ${plain(rooms.length)} rooms`;
  setText(byId('roomsNote'), !rooms.length && !pattern ? 'There are no rooms.' : count);
}

let searchTimer;
byId('search').addEventListener('input', () => {
  cursors = [undefined];
  renderRooms();
  clearTimeout(searchTimer);
  searchTimer = setTimeout(handleQuery, SEARCH_DELAY);
});
byId('find').addEventListener('submit', (event) => {
  event.preventDefault();
  const id = searchText();
  if (id) location.hash = `#rooms/${encodeURIComponent(id)}`;
});
for (const header of document.querySelectorAll('[data-sort]')) {
  header.addEventListener('click', () => {
    const by = header.dataset.sort;
    sort = { by, isDescending: sort.by === by ? !sort.isDescending : by !== 'room_id' };
    startQuery();
  });
}
byId('nextRooms').addEventListener('click', () => {
  cursors.push(next);
  handleQuery();
});
byId('previousRooms').addEventListener('click', () => {
  cursors.pop();
  handleQuery();
});

// The overview: server status, metrics, the list of rooms, and recent warnings.

import { byId, h, setText, showBadges, syncChildren } from './dom.mjs';
import { bytes, duration, formatOf, percent, plain, seconds } from './format.mjs';
import { gauge, labelsOf, linesOf, plottableNames, quantile, rate, valueOf } from './metrics.mjs';
import { plot } from './plot.mjs';

const MAX_ROWS = 200;
const DAY = 86_400;
/** The certificate badge turns red when fewer days are left. */
const CERTIFICATE_WARNING_DAYS = 14;

/** The default plots; one without values is left out. */
const PLOTS = [
  { title: 'Members', lines: [['', gauge('signaling_members')]], format: plain },
  { title: 'Connections', lines: [['', gauge('signaling_connections')]], format: plain },
  { title: 'Rooms', lines: [['', gauge('signaling_rooms')]], format: plain },
  { title: 'Messages per second', lines: [['', rate('signaling_messages_total')]], format: plain },
  { title: 'Joins per second', lines: [['', rate('signaling_joins_total')]], format: plain },
  { title: 'Closes per second', lines: [['', rate('signaling_session_ends_total')]], format: plain },
  { title: 'Routing', lines: histogramLines('signaling_routing_seconds'), format: seconds },
  { title: 'Ping round trip', lines: histogramLines('signaling_ping_rtt_seconds'), format: seconds },
  { title: 'Frames in send queues', lines: [['', gauge('signaling_send_queue_frames')]], format: plain },
  { title: 'Errors per second', lines: [['', rate('signaling_errors_total')]], format: plain },
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
  const nodes = valueOf(newest, 'signaling_cluster_nodes');
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

let rooms = [];
let sort = { by: 'connected_users', isDescending: true };

/** Shows the open rooms, and the closed ones whose timeline is still kept. */
export function showRooms(open, closed) {
  const openIds = new Set(open.map(({ room_id: id }) => id));
  rooms = [...open, ...closed.filter(({ room_id: id }) => !openIds.has(id))];
  renderRooms();
}

export function clearOverview() {
  rooms = [];
  for (const id of ['serverInfo', 'health', 'plots', 'rooms', 'logLines']) byId(id).replaceChildren();
}

function renderRooms() {
  const pattern = byId('search').value.trim().toLowerCase();
  const matching = rooms.filter(({ room_id: id }) => id.toLowerCase().includes(pattern));
  const { by, isDescending } = sort;
  const compare = (one, other) => ((one[by] ?? 0) < (other[by] ?? 0) ? -1 : Number((one[by] ?? 0) > (other[by] ?? 0)));
  matching.sort((one, other) => (isDescending ? -1 : 1) * compare(one, other) || (one.room_id < other.room_id ? -1 : 1));
  const create = () => h('tr', {}, h('th', { scope: 'row' }, h('a', {}, h('bdi'))), h('td'), h('td'), h('td'));
  syncChildren(byId('rooms'), matching.slice(0, MAX_ROWS), ({ room_id: id }) => id, create, (row, it) => {
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
  const count = `${plain(matching.length)} of ${plain(rooms.length)} rooms`;
  setText(byId('roomsNote'), !rooms.length ? 'There are no rooms.' : matching.length > MAX_ROWS ? `${count}; the first ${MAX_ROWS} are shown.` : count);
}

byId('search').addEventListener('input', renderRooms);
byId('find').addEventListener('submit', (event) => {
  event.preventDefault();
  const id = byId('search').value.trim();
  if (id) location.hash = `#rooms/${encodeURIComponent(id)}`;
});
for (const header of document.querySelectorAll('[data-sort]')) {
  header.addEventListener('click', () => {
    const by = header.dataset.sort;
    sort = { by, isDescending: sort.by === by ? !sort.isDescending : by !== 'room_id' };
    renderRooms();
  });
}

// The administrator's page: it asks the server every two seconds, shows what it says, and does what it is told.

import { diagram, h, plot, SHOWN } from './draw.mjs';
import { age, bytes, figure, labelsOf, level, linesOf, names, percent, plain, quantile, rate, read, seconds, unitOf } from './figures.mjs';
import { diagnose, isAbout, isBad, layout, nameOf, tell } from './story.mjs';

const EVERY = 2_000;
const PATIENCE = 10_000;
const KEPT = 'signaling-admin-token';
const MOST_ROWS = 200;
const DAY = 86_400;

/** Plots without figures are left out. */
const PLOTS = [
  { title: 'Members', lines: [['', level('signaling_members')]], unit: plain },
  { title: 'Connections', lines: [['', level('signaling_connections')]], unit: plain },
  { title: 'Rooms', lines: [['', level('signaling_rooms')]], unit: plain },
  { title: 'Messages per second', lines: [['', rate('signaling_messages_total')]], unit: plain },
  { title: 'Joins per second', lines: [['', rate('signaling_joins_total')]], unit: plain },
  { title: 'Closes per second', lines: [['', rate('signaling_session_ends_total')]], unit: plain },
  { title: 'Routing', lines: linesOfHistogram('signaling_routing_seconds'), unit: seconds },
  { title: 'Ping round trip', lines: linesOfHistogram('signaling_ping_rtt_seconds'), unit: seconds },
  { title: 'Frames that wait', lines: [['', level('signaling_outbox_frames')]], unit: plain },
  { title: 'Errors told per second', lines: [['', rate('signaling_errors_total')]], unit: plain },
  { title: 'Logins per second', lines: [['', rate('signaling_logins_total')]], unit: plain },
  { title: 'TURN credentials per second', lines: [['', rate('signaling_turn_credentials_total')]], unit: plain },
  { title: 'Processor, of one core', lines: [['', rate('process_cpu_seconds_total')]], unit: percent },
  { title: 'Memory', lines: [['', level('process_resident_memory_bytes')]], unit: bytes },
  { title: 'Open files', lines: [['', level('process_open_fds')]], unit: plain },
];

function linesOfHistogram(family) {
  return [['p50', quantile(family, 0.5)], ['p99', quantile(family, 0.99)]];
}

const $ = (id) => document.getElementById(id);
const now = () => Date.now() / 1000;
const clock = (ms) => new Date(ms).toLocaleString();

let token = sessionStorage.getItem(KEPT) ?? '';
let looks = [];
let rooms = [];
let room; // what is open of one: its id, and what was last heard of it
let node; // which server answers, where several share rooms
let sort = { by: 'connected_users', isDown: true };
let round = 0;
let timer;

// --- asking the server -----------------------------------------------------------------------------

/** What the server answers. Throws in words for who sits here; a token that is no good is forgotten. */
async function ask(method, path, body) {
  const asked = token;
  let response;
  try {
    // What no header can hold, no server takes: it is told nothing, and refuses.
    const headers = { authorization: `Bearer ${/^[!-~]*$/.test(asked) ? asked : ''}`, ...(body && { 'content-type': 'application/json' }) };
    const signal = AbortSignal.timeout(PATIENCE);
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: 'no-store', credentials: 'omit', signal });
  } catch {
    throw new Error('The server does not answer.');
  }
  if (response.ok) return response;
  const { detail } = await response.json().catch(() => ({}));
  const said = Array.isArray(detail) ? detail.map(({ msg }) => msg).join('; ') : detail;
  if (response.status === 401 && asked === token) signOut('The server does not take this token. It is the one that ADMIN_TOKEN says.');
  throw Object.assign(new Error(said ?? `The server answers ${response.status}.`), { status: response.status });
}

const get = async (path) => (await ask('GET', path)).json();
const api = (path) => `/admin/api/${path}`;
const ofRoom = (id, rest = '') => api(`rooms/${encodeURIComponent(id)}${rest}`);

/** Undefined where there is no such thing. */
const orNothing = (asking) => asking.catch((error) => {
  if (error.status !== 404) throw error;
});

/** Asks for all that is on view, and again after a while; not while nobody sees it. */
async function look() {
  clearTimeout(timer);
  round += 1;
  const mine = round;
  if (!token || document.hidden) return;
  try {
    const asked = room?.id;
    const [text, status, standing, list, past, whole, story] = await Promise.all([
      ask('GET', api('metrics')).then((response) => response.text()),
      get(api('status')),
      get(api('orders')),
      asked === undefined ? get(api('rooms')) : undefined,
      asked === undefined ? get(api('past')) : undefined,
      asked === undefined ? undefined : orNothing(get(ofRoom(asked))),
      asked === undefined ? undefined : orNothing(ask('GET', ofRoom(asked, '/timeline'))
        .then(async (response) => ({ ...await response.json(), now: Date.parse(response.headers.get('date')) }))),
    ]);
    if (mine !== round) return;
    const at = Date.now();
    looks = [...looks.filter((look) => at - look.at < SHOWN), { at, ...read(text) }];
    signedIn(true);
    // Figures of several are none of any, and each knows its own part of a story.
    const isMixed = node !== undefined && status.node !== node;
    node = status.node;
    if (isMixed) looks = looks.slice(-1);
    put($('trouble'), isMixed ? `Several servers answer in turn, now ${node}: open this page at one server's own address.` : '');
    showFigures();
    showStatus(status);
    showOrders(standing.orders);
    if (list) {
      const open = new Set(list.map(({ room_id: id }) => id));
      rooms = [...list, ...past.filter(({ room_id: id }) => !open.has(id))];
      showRooms();
    }
    if (asked !== undefined) showRoom(whole, story);
  } catch (error) {
    if (mine !== round) return;
    if (token) $('trouble').textContent = error.message;
  }
  timer = setTimeout(look, EVERY);
}

// --- signing in ------------------------------------------------------------------------------------

function signedIn(is) {
  for (const element of document.querySelectorAll('[data-signed-in]')) element.hidden = !is;
  $('signIn').hidden = is;
  $('board').hidden = !is || room !== undefined;
  $('room').hidden = !is || room === undefined;
  if (!is) $('standing').hidden = true;
}

function signOut(why = '') {
  clearTimeout(timer);
  round += 1;
  token = '';
  sessionStorage.removeItem(KEPT);
  [looks, rooms] = [[], []];
  for (const id of ['about', 'health', 'plots', 'rooms', 'lines', 'members', 'orders', 'diagnosis', 'only', 'diagram', 'events']) $(id).replaceChildren();
  if ($('question').open) $('question').close();
  signedIn(false);
  $('news').textContent = '';
  $('trouble').textContent = why;
  $('token').focus();
}

$('signIn').addEventListener('submit', (event) => {
  event.preventDefault();
  token = $('token').value.trim();
  $('token').value = '';
  sessionStorage.setItem(KEPT, token);
  look();
});
$('signOut').addEventListener('click', () => signOut());

// --- what there is ---------------------------------------------------------------------------------

/** Makes the children of `parent` be of these items; one that stays keeps its place, and the focus in it. */
function sync(parent, items, key, make, fill) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, place) => {
    const child = old.get(key(item)) ?? make();
    old.delete(key(item));
    child.dataset.key = key(item);
    child.item = item;
    fill(child, item);
    if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] ?? null);
  });
  for (const child of old.values()) child.remove();
}

/** Sets a text where it is another one, so that a reader of the page is not told it again. */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const cells = (count, ...actions) => () => {
  const row = h('tr', {}, h('th', { scope: 'row' }, h('bdi')), ...Array.from({ length: count }, () => h('td', {}, h('bdi'))));
  if (actions.length) row.append(h('td', {}, h('span', { class: 'buttons' }, ...actions.map((action) => action(row)))));
  return row;
};
const button = (text, act) => (row) => {
  const made = h('button', { type: 'button' }, text);
  made.addEventListener('click', () => act(row.item));
  return made;
};
const texts = (row, ...said) => said.forEach((text, place) => put(row.children[place].firstChild, text ?? ''));

function badges(list, items) {
  sync(list, items.filter(Boolean), ({ key }) => key, () => h('li'), (li, { text, className = '' }) => {
    put(li, text);
    li.className = className;
  });
}

function showStatus({ version, node, uptime_seconds: uptime, is_cluster_up: isUp, is_draining: isDraining, recent }) {
  const nodes = figure(looks.at(-1), 'signaling_cluster_nodes');
  badges($('about'), [
    { key: 'version', text: `Version ${version}` },
    { key: 'uptime', text: `Up ${age(uptime)}` },
    node !== undefined && { key: 'node', text: `Node ${node}` },
    isUp !== undefined && { key: 'cluster', text: isUp ? `Cluster up${nodes ? `, ${nodes} servers` : ''}` : 'Cluster out of reach', className: isUp ? 'good' : 'bad' },
    isDraining && { key: 'draining', text: 'Draining', className: 'bad' },
  ]);
  const lines = recent.map((line, place) => ({ ...line, place })).reverse();
  const make = () => h('li', {}, h('time'), h('strong'), h('bdi'), h('bdi', { class: 'quiet' }));
  sync($('lines'), lines, ({ at, place, message }) => `${at} ${place} ${message}`, make, (li, line) => {
    const [when, level, message, fields] = li.children;
    put(when, clock(line.at));
    put(level, line.level);
    level.className = line.level === 'ERROR' ? 'bad' : '';
    put(message, line.message);
    put(fields, Object.entries(line.fields).map(([name, value]) => `${name}=${value}`).join(' '));
  });
  put($('linesNote'), recent.length ? '' : 'None since the start.');
}

/** The TURN servers: each URL, whether it relays, and how long it takes. */
function relays() {
  const newest = looks.at(-1);
  return (newest?.samples.get('signaling_turn_up') ?? []).map((series) => (
    { url: labelsOf(series).url ?? '', isUp: series.figure === 1, latency: figure(newest, 'signaling_turn_latency_seconds', series.labels) }));
}

function showFigures() {
  const newest = looks.at(-1);
  const expiry = figure(newest, 'signaling_tls_certificate_expiry_timestamp_seconds');
  const days = Math.floor((expiry - now()) / DAY);
  badges($('health'), [
    expiry !== undefined && { key: 'certificate', text: days < 0 ? 'Certificate has expired' : `Certificate: ${days} days left`, className: days < 14 ? 'bad' : 'good' },
    ...relays().map(({ url, isUp, latency }) => (
      { key: `turn ${url}`, text: `${url} ${isUp ? 'relays' : 'does not relay'}${latency === undefined ? '' : `, ${seconds(latency)}`}`, className: isUp ? 'good' : 'bad' })),
  ]);
  const all = names(newest);
  sync($('another'), ['', ...all], (name) => name, () => h('option'), (option, name) => {
    option.value = name;
    put(option, name || 'none');
  });
  const more = $('another').value;
  const plots = [...PLOTS, ...(more ? [{ title: more, lines: linesOf(more, newest), unit: unitOf(more) }] : [])];
  $('plots').replaceChildren(...plots.map((it) => plot(it, looks)).filter(Boolean));
}
$('another').addEventListener('change', showFigures);

function showRooms() {
  const wanted = $('search').value.trim().toLowerCase();
  const found = rooms.filter(({ room_id: id }) => id.toLowerCase().includes(wanted));
  const { by, isDown } = sort;
  const order = (one, other) => ((one[by] ?? 0) < (other[by] ?? 0) ? -1 : Number((one[by] ?? 0) > (other[by] ?? 0)));
  found.sort((one, other) => (isDown ? -1 : 1) * order(one, other) || (one.room_id < other.room_id ? -1 : 1));
  const make = () => h('tr', {}, h('th', { scope: 'row' }, h('a', {}, h('bdi'))), h('td'), h('td'), h('td'));
  sync($('rooms'), found.slice(0, MOST_ROWS), ({ room_id: id }) => id, make, (row, it) => {
    const [name, members, capacity, state] = row.children;
    name.firstChild.href = `#rooms/${encodeURIComponent(it.room_id)}`;
    put(name.firstChild.firstChild, it.room_id);
    const isOver = it.over_for_seconds !== undefined;
    put(members, isOver ? '–' : plain(it.connected_users));
    put(capacity, isOver ? '–' : plain(it.capacity));
    put(state, isOver ? `over for ${age(it.over_for_seconds)}` : it.is_locked ? 'locked' : it.connected_users >= it.capacity ? 'full' : 'open');
  });
  for (const sorting of document.querySelectorAll('[data-sort]')) {
    const is = sorting.dataset.sort === by;
    sorting.parentElement.setAttribute('aria-sort', is ? (isDown ? 'descending' : 'ascending') : 'none');
  }
  const count = `${plain(found.length)} of ${plain(rooms.length)} rooms`;
  put($('roomsNote'), !rooms.length ? 'Nobody is in any room.' : found.length > MOST_ROWS ? `${count}; the first ${MOST_ROWS} are shown.` : count);
}
$('search').addEventListener('input', showRooms);
$('find').addEventListener('submit', (event) => {
  event.preventDefault();
  const wanted = $('search').value.trim();
  if (wanted) location.hash = `#rooms/${encodeURIComponent(wanted)}`;
});
for (const sorting of document.querySelectorAll('[data-sort]')) {
  sorting.addEventListener('click', () => {
    const by = sorting.dataset.sort;
    sort = { by, isDown: sort.by === by ? !sort.isDown : by !== 'room_id' };
    showRooms();
  });
}

// --- orders ----------------------------------------------------------------------------------------

function sayOrder({ order, who, members }) {
  if (order === 'lock') return 'Locked: nobody comes in';
  if (order === 'capacity') return `Holds ${members}`;
  if (who === 'everyone') return 'Closed: everybody is kept out';
  return who.username !== undefined ? `Ban of everybody called ${who.username}` : `Ban of client id ${who.client_id}`;
}

function showOrders(all) {
  const shown = all.filter(({ room: of }) => room === undefined || of === undefined || of === room.id);
  $('standing').hidden = shown.length === 0;
  const lift = button('Lift', (order) => act(() => ask('POST', api('lift'), order), 'Lifted.'));
  sync($('orders'), shown.slice(0, MOST_ROWS), ({ order, room: of, who }) => JSON.stringify([order, of, who]), cells(2, lift), (row, it) => {
    const isForGood = it.until - it.at / 1000 > 3649 * DAY; // ten years, the longest that there is
    texts(row, sayOrder(it), it.room ?? 'all rooms', isForGood ? 'it is lifted' : clock(it.until * 1000));
  });
}

// --- a room ----------------------------------------------------------------------------------------

function showRoom(whole, story) {
  if (!whole && !story) {
    put($('membersNote'), 'Nobody is in this room, and nothing is known of its past.');
  } else {
    const note = story === undefined || story.is_open ? '' : 'Nobody is in this room now.';
    put($('membersNote'), whole ? `${plain(whole.connected_users)} of ${plain(whole.capacity)} members${whole.is_locked ? '; the room is locked' : ''}` : note);
  }
  room.whole = whole;
  put(document.querySelector('[data-act="lock"]'), whole?.is_locked ? 'Unlock' : 'Lock');
  const actions = [button('Say…', say), button('Kick…', kick)];
  sync($('members'), whole?.members ?? [], ({ client_id: id }) => id, cells(6, ...actions), (row, it) => {
    const path = { host: 'direct', srflx: 'through NAT', relay: 'relay' }[it.path];
    texts(row, it.username, it.client_id, `${it.is_away ? 'away' : 'here'}${it.node === undefined ? '' : `, on ${it.node}`}`,
      it.seconds === undefined ? '' : age(it.seconds), it.address, it.ping_rtt_ms === undefined ? '' : seconds(it.ping_rtt_ms / 1000), path);
  });
  showStory(story);
}

function showStory(story) {
  const events = story?.events ?? [];
  const dead = relays().filter(({ isUp }) => !isUp).map(({ url }) => url);
  const sentences = story ? diagnose(story, story.now, dead) : [];
  sync($('diagnosis'), sentences, ({ text }) => text, () => h('li'), (li, { text, isBad: isWrong }) => {
    put(li, text);
    li.className = isWrong ? 'wrong' : '';
  });
  put($('storyNote'), story ? `${plain(events.length)} events${story.dropped ? `; ${plain(story.dropped)} older ones are no longer kept` : ''}.` : 'There is no timeline of this room.');
  if (events.at(-1)?.seq === room.newest) return;
  room.newest = events.at(-1)?.seq;
  room.events = events;
  const clients = new Map(events.filter(({ client_id: id }) => id !== undefined).map(({ client_id: id, username }) => [id, username]));
  sync($('only'), [['', 'everybody'], ...[...clients].map(([id, username]) => [id, nameOf(id, username)])], ([id]) => id, () => h('option'), (option, [id, name]) => {
    option.value = id;
    put(option, name);
  });
  drawStory();
}

/** All events, or those about one client. */
function drawStory() {
  const only = $('only').value;
  const events = room.events.filter((event) => !only || isAbout(event, only));
  const box = $('diagram');
  const isAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 40;
  box.replaceChildren(...(events.length ? diagram(layout(events), box.parentElement.clientWidth) : []));
  if (isAtEnd) box.scrollTop = box.scrollHeight;
  $('events').replaceChildren(...events.map((event) => h('tr', {},
    h('td', {}, `+${((event.at - events[0].at) / 1000).toFixed(3)}`), h('td', { class: isBad(event) ? 'bad' : '' }, h('bdi', {}, tell(event))))));
}
$('only').addEventListener('change', drawStory);

/** What the address says: a room, or all of them. */
function go() {
  let id;
  try {
    id = decodeURIComponent(/^#rooms\/(.+)$/s.exec(location.hash)?.[1] ?? '');
  } catch {
    id = ''; // an address that somebody has mistyped
  }
  room = id ? { id } : undefined;
  for (const list of ['members', 'diagnosis', 'only', 'diagram', 'events']) $(list).replaceChildren();
  for (const note of ['membersNote', 'storyNote', 'news']) $(note).textContent = '';
  $('roomTitle').replaceChildren('Room ', h('bdi', {}, id));
  document.title = id ? `${id} – Signaling server` : 'Signaling server';
  if (looks.length) signedIn(true);
  if (id) $('roomTitle').focus();
  look();
}

// --- acting ----------------------------------------------------------------------------------------

/** Does it, says so, and looks at what has become of it. */
async function act(doing, done) {
  $('news').textContent = '';
  try {
    await doing();
    $('news').textContent = done;
    $('trouble').textContent = '';
  } catch (error) {
    $('trouble').textContent = error.message;
  }
  look();
}

const TIMES = [['600', 'for 10 minutes'], ['3600', 'for an hour'], ['86400', 'for a day'], ['2592000', 'for 30 days'], ['315360000', 'until it is lifted']];

/** Asks for what is missing, then does it; what the server has against it is said in the dialog. */
function question({ title, text = '', fields = [], verb, isDanger, doing, done }) {
  const inputs = fields.map(({ name, label, options, ...attributes }) => {
    const made = options ? h('select', { id: `question-${name}` }, ...options.map(([value, said]) => h('option', { value }, said)))
      : h(attributes.rows ? 'textarea' : 'input', { id: `question-${name}`, ...attributes });
    return { name, label: h('label', { for: made.id }, label), made };
  });
  put($('questionTitle'), title);
  put($('questionText'), text);
  put($('questionDo'), verb);
  $('questionDo').className = isDanger ? 'main danger' : 'main';
  $('questionTrouble').textContent = '';
  $('questionFields').replaceChildren(...inputs.flatMap(({ label, made }) => [label, made]));
  $('question').doing = async () => {
    try {
      await doing(Object.fromEntries(inputs.map(({ name, made }) => [name, made.value])));
    } catch (error) {
      $('questionTrouble').textContent = error.message;
      return;
    }
    $('question').close();
    act(() => {}, done);
  };
  $('question').showModal();
}
$('question').addEventListener('submit', (event) => {
  event.preventDefault();
  $('question').doing();
});
$('questionNot').addEventListener('click', () => $('question').close());

function say(member) {
  const { id } = room;
  question({
    title: member ? `Say something to ${member.client_id}` : `Say something to everybody in ${id}`,
    text: 'Clients get it as the data of a server_message: whether and how it is shown is theirs.',
    fields: [{ name: 'data', label: 'Text', rows: 3, required: true }],
    verb: 'Say it', done: 'It is on its way.',
    doing: ({ data }) => ask('POST', ofRoom(id, '/message'), { data, to: member?.client_id }),
  });
}

function kick({ client_id: clientId, username }) {
  const { id } = room;
  question({
    title: `Kick ${clientId}`,
    fields: [
      { name: 'whom', label: 'Whom', options: [['client', `client id ${clientId}, out of this room`], ['user', `everybody called ${username}, out of this room`], ['all', `everybody called ${username}, out of every room`]] },
      { name: 'seconds', label: 'And keep out', options: [['0', 'not at all: they may come back at once'], ...TIMES] },
    ],
    verb: 'Kick', isDanger: true, done: `Done: ${clientId} is out.`,
    doing: ({ whom, seconds: chosen }) => {
      const kept = Number(chosen);
      if (whom !== 'all') return ask('POST', ofRoom(id, '/kick'), { ...(whom === 'user' ? { username } : { client_id: clientId }), ban_seconds: kept });
      // There is no kick out of every room: the shortest ban is one.
      return ask('POST', api('ban'), { username, seconds: Math.max(kept, 1) });
    },
  });
}

const ACTS = {
  say: () => say(),
  lock: () => {
    const { id, whole } = room;
    if (whole?.is_locked) act(() => ask('POST', ofRoom(id, '/unlock')), 'Unlocked.');
    else act(() => ask('POST', ofRoom(id, '/lock')), 'Locked: who is in stays, and nobody else comes in.');
  },
  capacity: () => {
    const { id, whole } = room;
    question({
      title: `How many ${id} holds`, text: 'Who is in stays. Empty: as many as other rooms.',
      fields: [{ name: 'members', label: 'Members', type: 'number', min: 1, max: 1_000_000, value: whole?.capacity }],
      verb: 'Set', done: 'Set.',
      doing: ({ members }) => ask('POST', ofRoom(id, '/capacity'), { members: members === '' ? null : Number(members) }),
    });
  },
  close: () => {
    const { id } = room;
    question({
      title: `Close ${id}`, text: 'Everybody in it is thrown out.',
      fields: [{ name: 'seconds', label: 'And keep it closed', options: [['0', 'not at all: it may be opened again at once'], ...TIMES] }],
      verb: 'Close the room', isDanger: true, done: 'Closed.',
      doing: ({ seconds: chosen }) => ask('POST', ofRoom(id, '/close'), { seconds: Number(chosen) }),
    });
  },
};
for (const acting of document.querySelectorAll('[data-act]')) acting.addEventListener('click', () => ACTS[acting.dataset.act]());

$('drain').addEventListener('click', () => question({
  title: 'Drain this server',
  text: 'Nobody comes in any more, clients are told when to come back, and the process ends. Type drain to confirm.',
  fields: [{ name: 'sure', label: 'Confirm', pattern: '\\s*drain\\s*', required: true, autocomplete: 'off', title: 'drain' }],
  verb: 'Drain', isDanger: true, done: 'It has begun.',
  doing: () => ask('POST', api('drain')),
}));

window.addEventListener('hashchange', go);
document.addEventListener('visibilitychange', look);
signedIn(false);
$('signIn').hidden = Boolean(token);
go();

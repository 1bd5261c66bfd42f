// One room: its members, its timeline, and the actions on it.

import { openDialog, perform } from './actions.mjs';
import { apiPath, request, roomPath } from './api.mjs';
import { byId, h, rowButton, rowOf, setCells, setText, syncChildren } from './dom.mjs';
import { duration, plain, seconds } from './format.mjs';
import { diagnose } from './diagnosis.mjs';
import { drawDiagram } from './diagram.mjs';
import { concerns, describeEvent, displayName, isFailure, layout } from './timeline.mjs';

const PATH_NAMES = { host: 'direct', srflx: 'through NAT', relay: 'TURN' };
/** The columns of the members' table between the user and the actions. */
const COLUMNS = ['Client id', 'State', 'Member for', 'Address', 'Ping', 'Last call'];
/** Durations of a ban or a mute, in seconds. */
const DURATIONS = [['600', 'for 10 minutes'], ['3600', 'for an hour'], ['86400', 'for a day'], ['2592000', 'for 30 days'], ['315360000', 'until it is removed']];

/** The room on view: its id, what the server last reported of it, and the events that are drawn. */
let room = { id: '', events: [] };

/** Clears the view for another room. */
export function openRoom(id) {
  room = { id, events: [] };
  clearRoom();
  for (const note of ['membersNote', 'timelineNote']) byId(note).textContent = '';
  byId('roomTitle').replaceChildren('Room ', h('bdi', {}, id));
}

export function clearRoom() {
  for (const list of ['members', 'diagnosis', 'clientFilter', 'diagram', 'events']) byId(list).replaceChildren();
}

/** Shows a room. `details` is undefined if it has no members, `timeline` if none is kept. */
export function showRoom(details, timeline, failedTurnServers) {
  if (details) {
    setText(byId('membersNote'), `${plain(details.connected_users)} of ${plain(details.capacity)} members${details.is_locked ? '; the room is locked' : ''}`);
  } else if (timeline) {
    setText(byId('membersNote'), timeline.is_open ? '' : 'The room is closed.');
  } else {
    setText(byId('membersNote'), 'This room has no members and no timeline.');
  }
  room.details = details;
  setText(document.querySelector('[data-act="lock"]'), details?.is_locked ? 'Unlock' : 'Lock');
  const actions = [rowButton('Message…', sendMessage), rowButton('Mute…', mute), rowButton('Kick…', kick)];
  // Those whose connection is lost first: they are who is looked for.
  const members = (details?.members ?? []).toSorted((one, other) => other.is_detached - one.is_detached);
  syncChildren(byId('members'), members, ({ client_id: id }) => id, rowOf(COLUMNS, ...actions), (row, it) => {
    setCells(row, it.name === undefined ? it.username : `${it.name} (${it.username})`, it.client_id, `${it.is_detached ? 'disconnected' : 'connected'}${it.node === undefined ? '' : `, on ${it.node}`}`,
      it.seconds === undefined ? '' : duration(it.seconds), it.address, it.ping_rtt_ms === undefined ? '' : seconds(it.ping_rtt_ms / 1000), PATH_NAMES[it.path]);
  });
  showTimeline(timeline, failedTurnServers);
}

function showTimeline(timeline, failedTurnServers) {
  const events = timeline?.events ?? [];
  const sentences = timeline ? diagnose(timeline, timeline.now, failedTurnServers) : [];
  syncChildren(byId('diagnosis'), sentences, ({ text }) => text, () => h('li'), (li, { text, isBad }) => {
    setText(li, text);
    li.className = isBad ? 'wrong' : '';
  });
  setText(byId('timelineNote'), timeline ? `${plain(events.length)} events${timeline.dropped ? `; ${plain(timeline.dropped)} older ones are no longer kept` : ''}.` : 'There is no timeline of this room.');
  if (events.at(-1)?.seq === room.newestSeq) return;
  room.newestSeq = events.at(-1)?.seq;
  room.events = events;
  const clients = new Map(events.filter(({ client_id: id }) => id !== undefined).map(({ client_id: id, username }) => [id, username]));
  const options = [['', 'all clients'], ...[...clients].map(([id, username]) => [id, displayName(id, username)])];
  syncChildren(byId('clientFilter'), options, ([id]) => id, () => h('option'), (option, [id, name]) => {
    option.value = id;
    setText(option, name);
  });
  drawTimeline();
}

/** Draws all events, or those that concern the selected client. */
function drawTimeline() {
  const client = byId('clientFilter').value;
  const events = room.events.filter((event) => !client || concerns(event, client));
  const box = byId('diagram');
  const isAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 40;
  box.replaceChildren(...(events.length ? drawDiagram(layout(events), box.parentElement.clientWidth) : []));
  if (isAtEnd) box.scrollTop = box.scrollHeight;
  byId('events').replaceChildren(...events.map((event) => h('tr', {},
    h('td', {}, `+${((event.at - events[0].at) / 1000).toFixed(3)}`), h('td', { class: isFailure(event) ? 'bad' : '' }, h('bdi', {}, describeEvent(event))))));
}
byId('clientFilter').addEventListener('change', drawTimeline);

// --- actions ---------------------------------------------------------------------------------------

function sendMessage(member) {
  const { id } = room;
  openDialog({
    title: member ? `Send a message to ${member.client_id}` : `Send a message to all members of ${id}`,
    text: 'Clients receive it as the data of a server_message frame. The client decides how to show it.',
    fields: [{ name: 'data', label: 'Text', rows: 3, required: true }],
    button: 'Send', message: 'The message was sent.',
    action: ({ data }) => request('POST', roomPath(id, '/message'), { data, to: member?.client_id }),
  });
}

function mute({ client_id: clientId, username }) {
  const { id } = room;
  openDialog({
    title: `Mute ${clientId}`,
    text: 'Messages of the client, and what it sends to everyone, are not passed on. Audio and video do not go through the server.',
    fields: [
      { name: 'target', label: 'Target', options: [['client', `client id ${clientId}`], ['user', `user ${username}`]] },
      { name: 'seconds', label: 'Mute', options: DURATIONS },
    ],
    button: 'Mute', message: `${clientId} is muted.`,
    action: ({ target, seconds: value }) =>
      request('POST', roomPath(id, '/mute'), { ...(target === 'user' ? { username } : { client_id: clientId }), seconds: Number(value) }),
  });
}

function kick({ client_id: clientId, username }) {
  const { id } = room;
  openDialog({
    title: `Kick ${clientId}`,
    fields: [
      { name: 'target', label: 'Target', options: [['client', `client id ${clientId}, from this room`], ['user', `user ${username}, from this room`], ['all', `user ${username}, from all rooms`]] },
      { name: 'seconds', label: 'Ban', options: [['0', 'none: rejoining is allowed at once'], ...DURATIONS] },
    ],
    button: 'Kick', isDanger: true, message: `${clientId} was kicked.`,
    action: ({ target, seconds: value }) => {
      const banSeconds = Number(value);
      if (target !== 'all') return request('POST', roomPath(id, '/kick'), { ...(target === 'user' ? { username } : { client_id: clientId }), ban_seconds: banSeconds });
      // The API has no kick from all rooms; a ban of one second has the same effect.
      return request('POST', apiPath('ban'), { username, seconds: Math.max(banSeconds, 1) });
    },
  });
}

const ACTIONS = {
  message: () => sendMessage(),
  lock: () => {
    const { id, details } = room;
    if (details?.is_locked) perform(() => request('POST', roomPath(id, '/unlock')), 'The room is unlocked.');
    else perform(() => request('POST', roomPath(id, '/lock')), 'The room is locked: its members stay, and new ones are refused.');
  },
  capacity: () => {
    const { id, details } = room;
    openDialog({
      title: `Capacity of ${id}`, text: 'Members beyond a lower capacity stay. Leave empty for the default capacity.',
      fields: [{ name: 'members', label: 'Members', type: 'number', min: 1, max: 1_000_000, value: details?.capacity }],
      button: 'Set', message: 'The capacity was set.',
      action: ({ members }) => request('POST', roomPath(id, '/capacity'), { members: members === '' ? null : Number(members) }),
    });
  },
  close: () => {
    const { id } = room;
    openDialog({
      title: `Close ${id}`, text: 'All members are disconnected.',
      fields: [{ name: 'seconds', label: 'Keep it closed', options: [['0', 'no: it may be opened again at once'], ...DURATIONS] }],
      button: 'Close the room', isDanger: true, message: 'The room was closed.',
      action: ({ seconds: value }) => request('POST', roomPath(id, '/close'), { seconds: Number(value) }),
    });
  },
};
for (const element of document.querySelectorAll('[data-act]')) element.addEventListener('click', () => ACTIONS[element.dataset.act]());

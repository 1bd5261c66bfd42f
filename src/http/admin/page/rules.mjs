// The moderation rules: bans, locks, mutes and capacities.

import { perform } from './actions.mjs';
import { apiPath, request } from './api.mjs';
import { byId, rowButton, rowOf, setCells, syncChildren } from './dom.mjs';

const MAX_ROWS = 200;
const DAY = 86_400;
/** A rule that is valid for longer, in seconds, is one without a chosen end: the server limits rules to ten years. */
const UNLIMITED = 3649 * DAY;

function describeRule({ rule, who, members }) {
  if (rule === 'lock') return 'Locked: new members are refused';
  if (rule === 'capacity') return `Capacity: ${members}`;
  if (who === 'everyone') return 'Closed: all clients are refused';
  const name = rule === 'mute' ? 'Mute' : 'Ban';
  return who.username !== undefined ? `${name} of user ${who.username}` : `${name} of client id ${who.client_id}`;
}

/** Shows the rules that apply to a room, or all of them if `roomId` is undefined. */
export function showRules(rules, roomId) {
  const shown = rules.filter(({ room }) => roomId === undefined || room === undefined || room === roomId);
  byId('rulesSection').hidden = shown.length === 0;
  const remove = rowButton('Remove', (rule) => perform(() => request('POST', apiPath('remove'), rule), 'Rule removed.'));
  syncChildren(byId('rules'), shown.slice(0, MAX_ROWS), ({ rule, room, who }) => JSON.stringify([rule, room, who]), rowOf(['Room', 'Made by', 'Until'], remove), (row, rule) => {
    const isUnlimited = rule.until - rule.at / 1000 > UNLIMITED;
    const author = rule.moderator === undefined ? 'an administrator' : `moderator ${rule.moderator}`;
    setCells(row, describeRule(rule), rule.room ?? 'all rooms', author, isUnlimited ? 'it is removed' : new Date(rule.until * 1000).toLocaleString());
  });
}

export function clearRules() {
  byId('rulesSection').hidden = true;
  byId('rules').replaceChildren();
}

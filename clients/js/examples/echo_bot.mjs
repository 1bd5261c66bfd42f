#!/usr/bin/env node
// A bot on werift that answers every call in a room, and echoes the messages on the data channels of the others, text and binary.
//
//   node echo_bot.mjs --url http://localhost:8080 --room standup --username user1 --password password123

import { parseArgs } from 'node:util';
import { connect, signIn } from 'signaling-client';
import { RTCPeerConnection } from 'werift';
import { WebSocket } from 'ws'; // Node has its own class from version 22 on

const text = { type: 'string' };
const { values } = parseArgs({ options: { url: text, room: text, username: text, password: text } });
const { url, room, username, password } = values;

const session = await connect({ url, room, getToken: signIn({ url, username, password }), RTCPeerConnection, WebSocket });
session.on('channel', ({ channel }) => {
  channel.onmessage = ({ data }) => channel.send(data);
});
session.on('error', ({ error }) => console.error(`${error.code}: ${error.message}`));
session.on('state', ({ state, reason }) => {
  console.error(state, reason ?? '');
  if (state === 'closed') setTimeout(() => process.exit(0), 500); // the last frames are on their way
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => session.close());

// A client written after the first server's README, message for message, runs unchanged on this server.
// It knows nothing that is new here: no `iceServers`, no guests, no error codes.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { openBrowser } from './browser.mjs';
import { cleanUp, PASSWORDS, startServer, eventually, SUITE_TIMEOUT } from './harness.mjs';

/** Runs in the page. Whoever is in the room already calls the newcomer, as that README's clients do. */
async function seedClient({ username, password, clientId }) {
  const login = await fetch('/auth/login', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ username, password }),
  });
  const jwtToken = (await login.json()).access_token;
  const peers = new Map();
  const client = { events: [], texts: [], channels: new Map() };
  window.client = client;

  const ws = new WebSocket(`${location.origin.replace('http', 'ws')}/ws/room_name`);
  client.ws = ws;
  const sendOffer = (targetClientId, offer) => ws.send(JSON.stringify({ type: 'offer', offer, to: targetClientId }));
  const sendAnswer = (targetClientId, answer) => ws.send(JSON.stringify({ type: 'answer', answer, to: targetClientId }));
  const sendCandidate = (targetClientId, candidate) => ws.send(JSON.stringify({ type: 'ice_candidate', candidate, to: targetClientId }));

  function peer(id) {
    if (!peers.has(id)) {
      const connection = new RTCPeerConnection();
      connection.onicecandidate = (event) => { if (event.candidate) sendCandidate(id, event.candidate); };
      connection.ondatachannel = (event) => keep(id, event.channel);
      peers.set(id, connection);
    }
    return peers.get(id);
  }
  function keep(id, channel) {
    channel.onopen = () => client.channels.set(id, channel);
    channel.onmessage = (event) => client.texts.push(event.data);
  }
  async function callNewcomer(id) {
    const connection = peer(id);
    keep(id, connection.createDataChannel('chat'));
    const offer = await connection.createOffer();
    await connection.setLocalDescription(offer);
    sendOffer(id, offer);
  }
  async function handleOffer(offer, senderClientId) {
    const connection = peer(senderClientId);
    await connection.setRemoteDescription(offer);
    const answer = await connection.createAnswer();
    await connection.setLocalDescription(answer);
    sendAnswer(senderClientId, answer);
  }
  const handleAnswer = (answer, senderClientId) => peer(senderClientId).setRemoteDescription(answer);
  const handleCandidate = (candidate, senderClientId) => peer(senderClientId).addIceCandidate(candidate);

  const take = async (message) => {
    client.events.push(message);
    switch (message.type) {
      case 'auth_required':
        ws.send(JSON.stringify({ type: 'auth_token', token: jwtToken, clientId }));
        break;
      case 'user_joined':
        await callNewcomer(message.client_id);
        break;
      case 'offer':
        await handleOffer(message.offer, message.from);
        break;
      case 'answer':
        await handleAnswer(message.answer, message.from);
        break;
      case 'ice_candidate':
        await handleCandidate(message.candidate, message.from);
        break;
    }
  };
  let inOrder = Promise.resolve();
  ws.onmessage = (event) => {
    const message = JSON.parse(event.data);
    inOrder = inOrder.then(() => take(message)).catch((error) => { client.failure = `${message.type}: ${error}`; });
  };
}

describe('a client of the first server', { timeout: SUITE_TIMEOUT }, () => {
  let server;
  let browser;

  before(async () => {
    [server, browser] = await Promise.all([startServer(), openBrowser()]);
  });
  after(async () => {
    await browser?.close();
    await cleanUp();
  });
  afterEach(() => browser.assertQuiet());

  async function open(username, clientId) {
    const page = await browser.page(`${server.url}/health`, { bypassCSP: true });
    await page.evaluate(seedClient, { username, password: PASSWORDS[username], clientId });
    await reaches(page, 'has heard who is there', ({ events }) => events.some(({ type }) => type === 'users_in_room'));
    return page;
  }

  const status = (page) => page.evaluate(() => {
    const { events, texts, failure, channels } = window.client;
    return { events, texts, failure, open: [...channels.keys()] };
  });

  async function reaches(page, what, condition) {
    let seen;
    return eventually(() => `the client ${what}: ${JSON.stringify(seen)}`, async () => {
      seen = await status(page);
      if (seen.failure) throw new Error(seen.failure);
      return condition(seen) && seen;
    });
  }

  test('joins, calls the newcomer, talks, and hears it leave', async () => {
    const alice = await open('alice', 'alice-id');
    const bob = await open('bob', undefined);

    const { events, open: [bobsId] } = await reaches(alice, 'has a channel', (seen) => seen.open.length === 1);
    await reaches(bob, 'has a channel', (seen) => seen.open.includes('alice-id'));
    await alice.evaluate(() => [...window.client.channels.values()][0].send('hello bob'));
    await reaches(bob, 'hears alice', ({ texts }) => texts.includes('hello bob'));

    const opening = events.slice(0, 4);
    assert.deepEqual(opening.map(({ type }) => type), ['auth_required', 'auth_success', 'users_in_room', 'user_joined']);
    assert.deepEqual([opening[1].user, opening[1].client_id], ['alice', 'alice-id']);
    assert.deepEqual(opening[2].users, []);
    assert.deepEqual([opening[3].username, opening[3].client_id], ['bob', bobsId]);
    assert.match(bobsId, /^[0-9a-f]{8}-/, 'who asks for no id is given a UUID');
    const seenByBob = (await status(bob)).events;
    assert.deepEqual(seenByBob.find(({ type }) => type === 'users_in_room').users, [{ client_id: 'alice-id', username: 'alice', polite: true }]);
    assert.deepEqual([...new Set(seenByBob.filter(({ from }) => from).map(({ from, username }) => `${from} ${username}`))], ['alice-id alice']);

    await bob.evaluate(() => window.client.ws.close());
    const after = await reaches(alice, 'hears that bob left', (seen) => seen.events.some(({ type }) => type === 'user_left'));
    const left = after.events.find(({ type }) => type === 'user_left');
    assert.deepEqual([left.username, left.client_id], ['bob', bobsId]);
  });
});

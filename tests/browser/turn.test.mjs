// The server's TURN credentials against a real coturn that runs deploy/turnserver.conf.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { ask, cleanUp, logIn, startCoturn, startServer, eventually, SUITE_TIMEOUT } from './harness.mjs';

const SECRET = 'a-secret-that-server-and-coturn-share';

describe('TURN credentials', { timeout: SUITE_TIMEOUT }, () => {
  let coturn;
  let credentials;

  before(async () => {
    coturn = await startCoturn({ secret: SECRET });
    credentials = await mint(coturn, { TURNSERVER_SECRET: SECRET });
  });
  after(cleanUp);

  // Over TLS coturn's own client hangs in its handshake now and then: call.test.mjs has a browser do that.
  for (const [transport, flags] of [['UDP', []], ['TCP', ['-t']]]) {
    test(`let two peers meet through coturn over ${transport}`, async () => {
      const outcome = await relay(coturn, credentials, flags);

      assert.equal(outcome.code, 0, outcome.text);
    });
  }

  for (const [transport, flags] of [['UDP', []], ['TCP', ['-t']]]) {
    test(`are refused over ${transport} when the credential was altered`, async () => {
      const { username, credential } = credentials;
      const other = credential.startsWith('A') ? 'B' : 'A';

      const outcome = await relay(coturn, { username, credential: other + credential.slice(1) }, flags);

      assertRefused(outcome);
    });

    test(`are refused over ${transport} when the expiry was moved`, async () => {
      const [expiry, name] = credentials.username.split(':');

      const outcome = await relay(coturn, { ...credentials, username: `${Number(expiry) + 60}:${name}` }, flags);

      assertRefused(outcome);
    });

    test(`are refused over ${transport} when they were made with another secret`, async () => {
      const others = await mint(coturn, { TURNSERVER_SECRET: 'not-the-secret-of-this-coturn-at-all' });

      assertRefused(await relay(coturn, others, flags));
    });

    test(`are refused over ${transport} once they have expired`, async () => {
      const shortLived = await mint(coturn, { TURNSERVER_SECRET: SECRET, TURNSERVER_TTL: '1' });
      const expiry = Number(shortLived.username.split(':')[0]);
      await eventually(() => 'they have expired', () => Date.now() / 1000 > expiry + 1);

      assertRefused(await relay(coturn, shortLived, flags));
    });
  }
});

describe('A new TURN secret', { timeout: SUITE_TIMEOUT }, () => {
  after(cleanUp);

  test('takes over while the credentials of the one before still count', async () => {
    const previous = 'the-secret-that-was-shared-until-now';
    const coturn = await startCoturn({ secret: SECRET, previous });

    for (const secret of [SECRET, previous]) {
      const outcome = await relay(coturn, await mint(coturn, { TURNSERVER_SECRET: secret }), []);

      assert.equal(outcome.code, 0, outcome.text);
    }
    assertRefused(await relay(coturn, await mint(coturn, { TURNSERVER_SECRET: 'a-third-one' }), []));
  });
});

// N12 of the attack catalogue.
describe('deploy/turnserver.conf', { timeout: SUITE_TIMEOUT }, () => {
  after(cleanUp);

  test('is understood by coturn without a complaint', async () => {
    const coturn = await startCoturn({ secret: SECRET, toLoopback: false });

    const complaints = coturn.child.output.split('\n').filter((line) => /error|warning|unknown|bad|cannot|fail/i.test(line));

    assert.deepEqual(complaints.filter((line) => !ABOUT_SCARCE_ADDRESSES.test(line)), []);
  });

  test('gives an allocation, and relays to nobody in a private network', async () => {
    const coturn = await startCoturn({ secret: SECRET, toLoopback: false });
    const credentials = await mint(coturn, { TURNSERVER_SECRET: SECRET });

    for (const inside of ['127.0.0.1', '10.0.0.1', '172.16.0.1', '192.168.0.1', '169.254.169.254', '100.64.0.1']) {
      const outcome = await relay(coturn, credentials, ['-v', '-e', inside]);

      assert.match(outcome.text, /Received relay addr: 127\.0\.0\.1:\d+/, inside);
      assert.match(outcome.text, /error 403 \(Forbidden IP\)/, inside);
    }
  });

  test('relays to public addresses', async () => {
    const coturn = await startCoturn({ secret: SECRET, toLoopback: false });
    const credentials = await mint(coturn, { TURNSERVER_SECRET: SECRET });

    for (const outside of ['1.1.1.1', '9.9.9.9', '223.255.255.1']) {
      // Permission is all that can be had here: the relay's socket is bound to 127.0.0.1, so nothing leaves.
      const outcome = await relay(coturn, credentials, ['-v', '-e', outside], /cb response received[^]*success|error \d+/);

      assert.match(outcome.text, /cb response received[^]*success/, outside);
      assert.doesNotMatch(outcome.text, /error \d+/, outside);
    }
  });
});

/** On a machine with one address coturn cannot do RFC 5780; nobody here needs it. */
const ABOUT_SCARCE_ADDRESSES = /CHANGE_REQUEST/;

/** From a password to credentials, as a client gets them from a server with these settings. */
async function mint(coturn, settings) {
  const server = await startServer({ TURNSERVER_URLS: `["turn:127.0.0.1:${coturn.port}"]`, ...settings });
  const token = await logIn(server.url, 'alice');
  const answer = await ask('GET', server.url, '/auth/turn-credentials', { token });
  assert.equal(answer.status, 200);
  await server.end();
  return answer.json;
}

/** Two allocations of coturn's own client (or, with `-e`, one of them and that peer) send three messages to each other.
 * Nobody answers at a made-up peer: the client is stopped when it has said `enough`. */
function relay(coturn, { username, credential }, flags, enough) {
  const each = flags.includes('-e') ? [] : ['-y'];
  const args = [...flags, ...each, '-u', username, '-w', credential, '-c', '-n', '3', '-m', '1', '-p', `${coturn.port}`, '127.0.0.1'];
  return new Promise((done) => {
    const client = execFile('turnutils_uclient', args, { timeout: 30_000 }, (error, stdout, stderr) =>
      done({ code: error ? error.code ?? error.signal : 0, text: stdout + stderr }));
    let seen = '';
    client.stdout.on('data', (text) => { if (enough?.test(seen += text)) client.kill(); });
  });
}

function assertRefused({ code, text }) {
  assert.equal(code, 255, text);
  assert.match(text, /Cannot complete Allocation/);
}

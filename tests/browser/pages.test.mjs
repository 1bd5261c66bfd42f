// The three example pages, clicked through as a person would: from the server and from disk.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { openBrowser, takeImage } from './browser.mjs';
import { ask, cleanUp, Client, logIn, MANAGE_USERS, ROOT, startCoturn, startServer, eventually, SUITE_TIMEOUT } from './harness.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SECRET = 'a-secret-that-server-and-coturn-share';
/** What does harm wherever it is taken for HTML: the dialog, and the request for x, are noticed. */
const HTML = '<img src=x onerror=alert(1)>';

/** In the page, before its script: the camera films a face. */
function drawFace([, background, skin, hair]) {
  const canvas = Object.assign(document.createElement('canvas'), { width: 480, height: 360 });
  const pen = canvas.getContext('2d');
  const round = (color, ...ellipse) => { pen.fillStyle = color; pen.beginPath(); pen.ellipse(...ellipse, 0, 0, 7); pen.fill(); };
  const draw = () => {
    const light = pen.createLinearGradient(0, 0, 480, 360);
    light.addColorStop(0, background);
    light.addColorStop(1, '#2d3f55');
    pen.fillStyle = light;
    pen.fillRect(0, 0, 480, 360);
    const sway = Math.sin(performance.now() / 700) * 6;
    round(hair, 240 + sway, 150, 84, 96);
    round(background, 240, 390, 140, 110);
    pen.fillStyle = skin;
    pen.fillRect(215 + sway, 230, 50, 60);
    round(skin, 240 + sway, 175, 66, 84);
    for (const x of [216, 264]) round('#222', x + sway, 168, 6, 7);
    pen.strokeStyle = '#6d3a2c';
    pen.lineWidth = 5;
    pen.beginPath();
    pen.arc(240 + sway, 205, 22, 0.3, 2.84);
    pen.stroke();
  };
  draw();
  setInterval(draw, 100);
  const open = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
  if (!open) return;
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const tracks = wanted.audio ? (await open({ audio: wanted.audio })).getTracks() : [];
    return new MediaStream([...tracks, ...(wanted.video ? canvas.captureStream(10).getTracks() : [])]);
  };
}

describe('the example pages', { timeout: SUITE_TIMEOUT }, () => {
  let coturn;
  let server;
  let browser;

  before(async () => {
    [coturn, browser] = await Promise.all([startCoturn({ secret: SECRET }), openBrowser()]);
    server = await startServer({
      DEBUG: 'true', ALLOW_ANONYMOUS: 'true', TURNSERVER_SECRET: SECRET, TURNSERVER_URLS: `["turn:127.0.0.1:${coturn.port}"]`,
    });
  });
  after(async () => {
    await browser?.close();
    await cleanUp();
  });
  afterEach(() => browser.assertQuiet());

  const served = (name, query = '') => `${server.url}/examples/${name}${query}`;
  const onDisk = (name, base = server.url) =>
    `${pathToFileURL(join(ROOT, 'examples', name))}?server=${encodeURIComponent(base)}`;

  // --- what a person does and sees ---------------------------------------------------------------

  const state = (page, name) => page.locator(`#status[data-state="${name}"]`).waitFor();
  const others = (page) => page.locator('#users li[data-client-id]:not([data-client-id="me"])');
  const remote = (page) => page.locator('#videos figure[data-client-id]:not([data-client-id="me"])');

  async function count(locator, expected) {
    await eventually(() => `there are ${expected} of ${locator}`, async () => (await locator.count()) === expected);
  }

  /** Opens the link that the page offers for a second tab. */
  async function invite(page) {
    const [tab] = await Promise.all([page.context().waitForEvent('page'), page.locator('#invite').click()]);
    await tab.waitForLoadState();
    return tab;
  }

  async function connect(page, room) {
    if (room) await page.locator('#room').fill(room);
    await page.locator('#connect').click();
    await state(page, 'joined');
    return page;
  }

  async function logInAndJoin(page, { username, password, room } = {}) {
    if (username !== undefined) {
      await page.locator('#account summary').click();
      await page.locator('#username').fill(username);
      if (password !== undefined) await page.locator('#password').fill(password);
    }
    if (room) await page.locator('#room').fill(room);
    await page.locator('#join').click();
    await state(page, 'joined');
    return page;
  }

  /** As many remote pictures as expected, each of them connected and moving. */
  async function sees(page, expected) {
    await count(remote(page), expected);
    const times = () => remote(page).locator('video').evaluateAll((videos) => videos.map(({ videoWidth, currentTime }) => (videoWidth > 0 ? currentTime : 0)));
    await eventually(() => 'every picture has begun', async () => (await times()).every((time) => time > 0));
    const before = await times();
    await eventually(() => 'every picture moves', async () => (await times()).every((time, index) => time > before[index]));
    await count(page.locator('#videos figure[data-connection="connected"]'), expected);
  }

  async function say(page, text) {
    await page.locator('#chat').fill(text);
    await page.locator('#sendChat').click();
  }

  // --- simple_client.html ------------------------------------------------------------------------

  describe('simple_client.html', () => {
    test('lets two guests see each other, open a data channel and chat', async () => {
      const first = await connect(await browser.page(served('simple_client.html')), 'guests');
      const second = await connect(await invite(first));

      await count(others(first), 1);
      await count(others(second), 1);
      for (const page of [first, second]) await page.locator('#users li[data-channel="open"]').waitFor();
      await first.locator('#message').fill('hello from the first tab');
      await first.locator('#send').click();
      await second.locator('#log [data-direction="in"][data-type="message"]').first().waitFor();
      await second.getByText('hello from the first tab').first().waitFor();
      await second.locator('#ping').click();
      await second.locator('#log [data-direction="in"][data-type="pong"]').first().waitFor();

      await second.locator('#disconnect').click();
      await count(others(first), 0);
      await first.context().close();
    });

    test('shows the answer to a frame of one\'s own', async () => {
      const page = await connect(await browser.page(served('simple_client.html')), 'learners');

      await page.locator('#raw').fill('{"type":"somersault"}');
      await page.locator('#sendRaw').click();

      await page.locator('#error', { hasText: 'Unknown message type: somersault' }).waitFor();
      await page.locator('#disconnect').click();
      await page.locator('#status', { hasText: 'You have left the room.' }).waitFor();
      assert.equal(await page.locator('#send').isDisabled(), true);
      await page.context().close();
    });

    test('names ALLOW_ANONYMOUS where the server takes no guests', async () => {
      const strict = await startServer({ DEBUG: 'true' });
      const page = await browser.page(`${strict.url}/examples/simple_client.html`);

      await page.locator('#connect').click();

      await state(page, 'refused');
      assert.match(await page.locator('#status').innerText(), /ALLOW_ANONYMOUS/);
      await page.context().close();
    });

    test('works from disk', async () => {
      const first = await connect(await browser.page(onDisk('simple_client.html')), 'disk');
      const second = await connect(await browser.page(onDisk('simple_client.html')), 'disk');

      for (const page of [first, second]) await page.locator('#users li[data-channel="open"]').waitFor();
      for (const page of [first, second]) await page.context().close();
    });
  });

  // --- secure_client.html ------------------------------------------------------------------------

  describe('secure_client.html', () => {
    test('is a video call of two, then of three, that ends for who leaves', async () => {
      const first = await logInAndJoin(await browser.page(served('secure_client.html')), { room: 'family' });
      const second = await logInAndJoin(await invite(first), { username: 'user2', password: 'password123' });
      await sees(first, 1);
      await sees(second, 1);
      await say(second, 'can you see me?');
      await first.locator('#messages').getByText('can you see me?').waitFor();
      await first.locator('#videos figure[data-path="direct"]').first().waitFor();

      const third = await logInAndJoin(await invite(first), { username: 'admin', password: 'admin123' });
      for (const page of [first, second, third]) await sees(page, 2);
      await count(others(third), 2);

      await second.locator('#leave').click();
      await state(second, 'closed');
      await third.close();
      await count(remote(first), 0);
      await count(others(first), 0);
      await first.context().close();
    });

    test('shows who is muted, who has no camera on, and a shared screen', async () => {
      const first = await logInAndJoin(await browser.page(served('secure_client.html')), { room: 'show' });
      const second = await logInAndJoin(await invite(first), { username: 'user2' });
      await sees(second, 1);
      const tile = remote(second);

      await first.locator('#mic').click();
      await tile.getByRole('img', { name: 'muted' }).waitFor();
      await first.locator('#camera').click();
      await second.locator('#videos figure.no-picture[data-client-id]:not([data-client-id="me"])').waitFor();
      for (const id of ['#mic', '#camera']) await first.locator(id).click();
      await count(second.locator('figure.no-picture'), 0);
      assert.equal(await tile.getByRole('img', { name: 'muted' }).count(), 0);

      await first.locator('#screen').click();
      await count(second.locator('figure.screen'), 1);
      await eventually(() => 'the screen is seen', () => second.locator('figure.screen video').evaluate((video) => video.videoWidth > 0));
      await first.locator('#screen').click();
      await count(second.locator('figure.screen'), 0);
      await sees(second, 1);
      await first.context().close();
    });

    /** The tiles: what each shows, its size, and how far its shape is from the shape of its picture. */
    const tiles = (page) => page.locator('#videos figure').evaluateAll((figures) => figures.map((figure) => {
      const { width, height } = figure.getBoundingClientRect();
      const video = figure.querySelector('video');
      const shape = video.videoWidth ? Math.abs(width / height / (video.videoWidth / video.videoHeight) - 1) : 0;
      return { name: figure.querySelector('.name').textContent, area: width * height, shape, fit: getComputedStyle(video).objectFit };
    }));
    /** The name of the tile that is much larger than the others. */
    const largest = async (page) => {
      const [first, second] = (await tiles(page)).sort((one, other) => other.area - one.area);
      return first.area > 3 * second.area ? first.name : null;
    };
    const becomesLarge = (page, name) => eventually(() => `the largest tile is ${name}`, async () => (await largest(page)) === name);

    test('shows every picture whole, and a shared screen large until another tile is chosen', async () => {
      const first = await logInAndJoin(await browser.page(served('secure_client.html')), { room: 'large' });
      const second = await logInAndJoin(await invite(first), { username: 'user2', password: 'password123' });
      await sees(second, 1);
      await becomesLarge(second, null);

      await first.locator('#screen').click();
      await becomesLarge(second, 'user1: screen');
      await becomesLarge(first, null); // one's own screen stays small
      for (const viewport of [{ width: 1280, height: 720 }, { width: 390, height: 844 }]) {
        await second.setViewportSize(viewport);
        await eventually(() => `tiles have the shape of their pictures at ${viewport.width}`, async () => (await tiles(second)).every(({ shape }) => shape < 0.05));
        assert.ok((await tiles(second)).every(({ fit }) => fit === 'contain'));
      }
      await second.setViewportSize({ width: 1280, height: 720 });
      await second.locator('figure.screen').dblclick();
      await becomesLarge(second, null);
      await second.getByRole('button', { name: 'Enlarge user1', exact: true }).click();
      await becomesLarge(second, 'user1');
      assert.equal(await second.getByRole('button', { name: 'Enlarge user1', exact: true }).getAttribute('aria-pressed'), 'true');
      await first.locator('#screen').click();
      await count(second.locator('figure.screen'), 0);
      await becomesLarge(second, 'user1');
      await first.context().close();
    });

    test('shows the camera before joining, and joins with it off if it was turned off', async () => {
      const first = await browser.page(served('secure_client.html', '?room=preview'));
      await eventually(() => 'the camera is seen in the lobby', () => first.locator('#mirror video').evaluate((video) => video.videoWidth > 0));
      await first.locator('#lobbyCamera').click();
      await first.getByText('Your camera is off.').waitFor();
      assert.equal(await first.locator('#password').isVisible(), false, 'it is behind "Sign in"');
      await logInAndJoin(first);
      const second = await logInAndJoin(await invite(first), { username: 'user2' });

      await count(remote(second), 1);
      await second.locator('#videos figure.no-picture[data-client-id]:not([data-client-id="me"])').waitFor();
      await first.locator('#camera').click();
      await sees(second, 1);
      await first.context().close();
    });

    test('lists everybody with the state of their link, oneself first, and tells who comes and goes', async () => {
      const first = await logInAndJoin(await browser.page(served('secure_client.html')), { room: 'people' });
      const people = () => first.locator('#users li').evaluateAll((items) => items.map(({ innerText }) => innerText.replace(/\s+/g, ' ').trim()));
      assert.deepEqual(await people(), ['user1 (you) connected to the server']);
      await first.getByText('You are alone here.').waitFor();

      const second = await logInAndJoin(await invite(first), { username: 'user2' });
      await eventually(() => 'the link to user2 is shown', async () => /^user2 direct · \d+ ms/.test((await people())[1]));
      assert.match((await people())[0], /^user1 \(you\)/);
      assert.equal(await first.locator('#announcement').innerText(), 'user2 has joined.');
      await second.locator('#leave').click();
      await eventually(() => 'the leave is told', async () => (await first.locator('#announcement').innerText()) === 'user2 has left.');
      assert.equal(await first.locator('#alone').isVisible(), true);
      await first.context().close();
    });

    test('has a red button to hang up within reach, on a phone and in both themes', async () => {
      const page = await logInAndJoin(await browser.page(served('secure_client.html')), { room: 'hang-up' });
      const colors = new Set();
      for (const viewport of [{ width: 1280, height: 720 }, { width: 390, height: 844 }, { width: 844, height: 390 }]) {
        await page.setViewportSize(viewport);
        for (const colorScheme of ['light', 'dark']) {
          await page.emulateMedia({ colorScheme });
          for (let press = 0; press < 2; press += 1) {
            await page.locator('#people').click(); // with and without the panel
            colors.add(await page.locator('#leave').evaluate((button) => {
              const { left, top, width, height } = button.getBoundingClientRect();
              const isOnTop = button.contains(document.elementFromPoint(left + width / 2, top + height / 2));
              return isOnTop ? getComputedStyle(button).backgroundColor : 'covered';
            }));
          }
        }
      }
      assert.deepEqual([...colors], ['rgb(197, 34, 31)']);
      await page.locator('#leave').click();
      await state(page, 'closed');
      await page.context().close();
    });

    test('looks as the picture in the documents', async () => {
      const room = 'standup';
      const faces = [['alice', '#4b7ba6', '#e6b893', '#3b2417'], ['bob', '#b07a50', '#c68c60', '#201a17'], ['carol', '#6fa080', '#efc8a4', '#a5512b'], ['dora', '#8f7ab5', '#8c5a38', '#111']];
      for (const [name] of faces) execFileSync(MANAGE_USERS, ['add', `${name}:password123`], { cwd: server.home, env: { PATH: process.env.PATH }, stdio: 'ignore' });
      await eventually(() => 'the server knows the new users', () => logIn(server.url, 'dora', 'password123').catch(() => undefined));
      const pages = [];
      for (const face of faces) {
        const page = await browser.page();
        await page.addInitScript(drawFace, face);
        await page.setViewportSize({ width: 1180, height: 680 });
        await page.goto(served('secure_client.html', `?room=${room}${face[0] === 'carol' ? '&relay' : ''}`));
        pages.push(await logInAndJoin(page, { username: face[0], password: 'password123' }));
      }
      const [alice, bob, carol, dora] = pages;
      await sees(alice, 3);
      await alice.locator('#videos figure[data-path="relay"]').waitFor();
      await dora.locator('#mic').click();
      await say(bob, 'Morning! Shall we begin?');
      await alice.getByText('Shall we begin?').waitFor();
      await say(carol, 'I am behind a hotel\u2019s firewall, so through TURN today');
      await alice.getByText('hotel').waitFor();
      await say(alice, 'Loud and clear');
      await remote(alice).getByRole('img', { name: 'muted' }).waitFor();
      await takeImage(alice, 'call.png');
      for (const page of pages) await page.context().close();
    });

    test('sends another camera without a new negotiation', async () => {
      const first = await logInAndJoin(await browser.page(served('secure_client.html')), { room: 'cameras' });
      const second = await logInAndJoin(await invite(first), { username: 'user2' });
      await sees(second, 1);
      const shown = () => remote(second).locator('video').evaluate(({ srcObject }) => srcObject.id);
      const before = await shown();

      await first.locator('#settings').click();
      const cameras = await first.locator('#videoinput option').evaluateAll((options) => options.map(({ value }) => value));
      assert.ok(cameras.length > 1, 'Chromium has two fake cameras');
      await first.locator('#videoinput').selectOption(cameras[1]);
      await first.keyboard.press('Escape');

      await sees(second, 1);
      assert.equal(await shown(), before);
      await first.context().close();
    });

    test('calls through the relay when it is asked to', async () => {
      const enter = async () => logInAndJoin(await browser.page(served('secure_client.html', '?relay&room=relayed')));
      const [first, second] = [await enter(), await enter()];

      for (const page of [first, second]) {
        await sees(page, 1);
        await page.locator('#videos figure[data-path="relay"]').waitFor();
      }
      for (const page of [first, second]) await page.context().close();
    });

    test('says so when the password is wrong', async () => {
      const page = await browser.page(served('secure_client.html'), { expected: [/401 \(Unauthorized\)/] });

      await page.locator('#account summary').click();
      await page.locator('#password').fill('not the password');
      await page.locator('#account summary').click();
      await page.locator('#join').click();

      await state(page, 'error');
      assert.match(await page.locator('#status').innerText(), /password/i);
      assert.equal(await page.locator('#password').isVisible(), true, 'where it can be corrected');
      await page.context().close();
    });

    test('works from disk', async () => {
      const enter = async () => logInAndJoin(await browser.page(onDisk('secure_client.html')), { room: 'disk-call' });
      const [first, second] = [await enter(), await enter()];

      for (const page of [first, second]) await sees(page, 1);
      for (const page of [first, second]) await page.context().close();
    });
  });

  // --- for everybody -----------------------------------------------------------------------------

  describe('every page', () => {
    const wide = ({ documentElement: { scrollWidth, clientWidth } } = document) => scrollWidth > clientWidth;

    /** What axe-core finds, in both themes, and whether it fits a small phone. */
    async function suits(page, what) {
      await page.addScriptTag({ content: AXE });
      for (const colorScheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme });
        const { violations } = await page.evaluate(() => window.axe.run());
        assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), [], `${what}, ${colorScheme}`);
      }
      await page.setViewportSize({ width: 360, height: 640 });
      assert.equal(await page.evaluate(wide), false, `${what} is too wide`);
      await page.context().close();
    }

    for (const name of ['simple_client.html', 'secure_client.html', 'turn_credentials_example.html']) {
      test(`${name} is accessible in both themes, and fits a phone`, async () => {
        await suits(await browser.page(served(name), { bypassCSP: true }), name);
      });
    }

    test('so is a call', async () => {
      const page = await logInAndJoin(await browser.page(served('secure_client.html'), { bypassCSP: true }), { room: 'axe' });
      const other = await logInAndJoin(await invite(page), { username: 'user2' });
      await sees(page, 1);
      await say(other, 'Hello');
      await page.getByText('Hello').waitFor();

      await suits(page, 'a call');
    });

    test('a call can be made with the keyboard alone', async () => {
      const page = await browser.page(served('secure_client.html', '?room=keys'));
      await page.locator('#room').focus();
      await page.keyboard.press('Enter');
      await state(page, 'joined');

      const names = [];
      for (let stop = 0; stop < 12; stop += 1) {
        await page.keyboard.press('Tab');
        names.push(await page.evaluate(() => document.activeElement.id));
      }
      for (const id of ['mic', 'camera', 'settings', 'people', 'leave', 'chat']) assert.ok(names.includes(id), `${id} among ${names}`);
      await page.locator('#leave').press('Enter');
      await state(page, 'closed');
      await page.context().close();
    });
  });

  // --- others write what these pages show --------------------------------------------------------

  test('HTML in a name, a room, a chat or a frame is shown as text and does nothing', async () => {
    execFileSync(MANAGE_USERS, ['add', `${HTML}:password123`, 'evil@example.com'], { cwd: server.home, env: { PATH: process.env.PATH }, stdio: 'ignore' });
    const token = await eventually(() => 'the server knows the new user', () => logIn(server.url, HTML, 'password123').catch(() => undefined));
    const room = `room ${HTML}`;
    const simple = await connect(await browser.page(served('simple_client.html')), room);
    const secure = await logInAndJoin(await browser.page(served('secure_client.html', `?room=${encodeURIComponent(room)}`)));
    const evil = await logInAndJoin(await browser.page(served('secure_client.html')), { username: HTML, password: 'password123', room });

    const peer = await Client.join(server.url, room, token, 'evil-peer');
    peer.send({ type: 'message', data: HTML });
    peer.send({ type: 'message', data: { [HTML]: HTML } });
    peer.send({ type: 'offer', offer: { type: 'offer', sdp: HTML } });
    peer.send({ type: 'somersault', id: HTML });
    await say(evil, HTML);

    await simple.locator('#log').getByText(HTML).first().waitFor({ state: 'attached' });
    await secure.locator('#users').getByText(HTML).first().waitFor();
    await secure.locator('#messages').getByText(HTML).first().waitFor();
    for (const page of [simple, secure, evil]) {
      assert.equal(await page.locator('img').count(), 0);
      await page.context().close();
    }
    await peer.close();
  });

  test('the list at /examples/, to which a browser is sent from /, leads to each of them and says what it is', async () => {
    for (const path of ['/examples/', '/']) {
      const page = await browser.page(`${server.url}${path}`);

      const items = await page.locator('li').evaluateAll((all) => all.map((li) => [li.querySelector('a').getAttribute('href'), li.innerText]));
      assert.deepEqual(items.map(([href]) => href).slice(0, 3), ['secure_client', 'simple_client', 'turn_credentials_example'].map((name) => `/examples/${name}.html`));
      for (const [href, about] of items) {
        assert.equal((await ask('GET', server.url, href)).status, 200);
        assert.match(about, /^.+\n.+\.$/);
      }
      await page.context().close();
    }
    assert.deepEqual((await ask('GET', server.url, '/')).json, { message: 'WebRTC Signaling Server is running' });
  });
});

// TURN servers other than coturn, each on a free port and in a folder of its own. Each start returns the port and the process.

import { mkdirSync, writeFileSync } from 'node:fs';
import { createSocket } from 'node:dgram';
import net from 'node:net';
import { join } from 'node:path';
import { accepts, eventually, folder, freePort, launch, onFreePorts, ready } from '../browser/harness.mjs';
import { buildGo, FIELD, TARGET } from './clients.mjs';

const { PATH } = process.env;

/** Whether a UDP port of this machine answers a STUN Binding request. */
async function answersStun(port) {
  const socket = createSocket('udp4');
  const request = Buffer.concat([Buffer.from('000100002112a442', 'hex'), Buffer.from('a transaction'.slice(0, 12))]);
  const answer = new Promise((done) => {
    socket.once('message', () => done(true)).once('error', () => done(false));
    setTimeout(() => done(false), 500);
  });
  socket.connect(port, '127.0.0.1', () => socket.send(request));
  const isThere = await answer;
  socket.close();
  return isThere;
}

/** Starts a server in a folder of its own: `prepare` writes its files there, and returns its command and variables. */
function startIn(name, prepare, isReady = answersStun) {
  return onFreePorts(async () => {
    const [home, port] = [folder(), await freePort()];
    const [command, env = {}] = await prepare(home, port);
    const child = launch(command[0], command.slice(1), { cwd: home, env: { PATH, HOME: home, ...env } });
    await ready(child, name, () => isReady(port));
    return { port, child };
  });
}

/** turn-rs over UDP and TCP, with this secret. */
export const startTurnRs = ({ secret }) => startIn('turn-rs', (home, port) => {
  const interfaces = ['udp', 'tcp'].map((transport) => `
[[server.interfaces]]
transport = "${transport}"
listen = "127.0.0.1:${port}"
external = "127.0.0.1:${port}"
idle-timeout = 20
mtu = 1500
`);
  const conf = join(home, 'turn-server.toml');
  writeFileSync(conf, `[server]\nrealm = "localhost"\n${interfaces.join('')}\n[auth]\nstatic-auth-secret = "${secret}"\n`);
  return [[join(TARGET, 'cargo/bin/turn-server'), '--config', conf]];
});

/** ejabberd, which is one Erlang node without a name: it needs no epmd. */
export const startEjabberd = ({ secret }) => startIn('ejabberd', (home, port) => {
  const listeners = ['udp', 'tcp'].map((transport) => `
  - port: ${port}
    ip: "127.0.0.1"
    transport: ${transport}
    module: ejabberd_stun
    use_turn: true
    turn_ipv4_address: "127.0.0.1"
    auth_type: user
    auth_realm: localhost
`);
  const conf = join(home, 'ejabberd.yml');
  writeFileSync(conf, `hosts: [localhost]\nlisten:${listeners.join('')}\nmodules:\n  mod_stun_disco: { secret: "${secret}" }\n`);
  mkdirSync(join(home, 'spool'));
  return [['erl', '-noinput', '-mnesia', 'dir', `"${home}/spool"`, '-s', 'ejabberd'], {
    EJABBERD_CONFIG_PATH: conf, EJABBERD_LOG_PATH: join(home, 'ejabberd.log'), ERL_LIBS: '/usr/lib/x86_64-linux-gnu',
  }];
});

const GO_EXAMPLES = '/usr/share/gocode/src/github.com/pion/turn/v2/examples/turn-server';

/** The example of pion/turn for a shared secret. */
export const startPion = ({ secret }) => startIn('pion/turn', async (home, port) => {
  const binary = join(home, 'turn');
  await buildGo(binary, join(GO_EXAMPLES, 'lt-cred/main.go'));
  return [[binary, '-public-ip', '127.0.0.1', '-port', String(port), '-authSecret', secret]];
});

/** node-turn, with this authentication. */
export const startNodeTurn = (auth) => () => startIn('node-turn', (home, port) => [
  [process.execPath, join(FIELD, 'turn/node_turn.mjs')], { TURN_PORT: String(port), TURN_AUTH: auth },
]);

/** A port that hears all and says nothing. */
export const startSilence = () => onFreePorts(async () => {
  const port = await freePort();
  const [datagrams, streams] = [createSocket('udp4').bind(port, '127.0.0.1').unref(), net.createServer().listen(port, '127.0.0.1').unref()];
  await eventually(() => 'the silent port is there', () => accepts(port));
  return { port, end: () => { datagrams.close(); streams.close(); } };
});

// Apache, lighttpd, HAProxy as a TCP proxy, and stunnel, each with its file from deploy/, on free ports and in a folder of
// its own. Each start returns what `startNginx` of the harness returns.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { accepts, certificate, folder, freePort, launch, onFreePorts, ready, ROOT, substitute } from './harness.mjs';

const PATH = `${process.env.PATH}:/usr/sbin`;
const DOMAIN = 'signaling.example.com';
const PEM = `/etc/letsencrypt/live/${DOMAIN}`;
const read = (name) => readFileSync(join(ROOT, 'deploy', name), 'utf8');

/**
 * Starts a proxy whose configuration, from deploy/, has these texts in place of others, and waits for its ports. `isPlain` is
 * whether it has one for plain HTTP.
 */
export async function start({ server, name, file, changes, before = '', isPlain = true, command }) {
  return onFreePorts(async () => {
    const home = folder();
    const [port, plainPort] = [await freePort(), await freePort()];
    const places = { home, port, plainPort, pem: certificate().folder, server: `127.0.0.1:${server.port}`, serverPort: server.port };
    const conf = join(home, file);
    writeFileSync(conf, (typeof before === 'function' ? before(places) : before) + substitute(read(file), changes(places)));
    const [program, ...args] = command(conf, places);
    const child = launch(program, args, { cwd: home, env: { PATH } });
    await ready(child, name, async () => (await accepts(port)) && (!isPlain || await accepts(plainPort)));
    return { url: `https://localhost:${port}`, plainUrl: `http://localhost:${plainPort}`, port, plainPort, child, conf };
  });
}

const APACHE_MODULES = ['mpm_event', 'authz_core', 'alias', 'headers', 'proxy', 'proxy_http', 'rewrite', 'ssl', 'socache_shmcb'];

/** Starts Apache httpd with deploy/apache.conf. */
export const startApache = (server) => start({
  server,
  name: 'Apache',
  file: 'apache.conf',
  // What Debian's own files have.
  before: ({ home, port, plainPort }) => `
    ServerRoot ${home}
    ServerName localhost
    PidFile ${home}/pid
    ErrorLog "|$/bin/cat >&2"
    LogLevel error
    MaxRequestWorkers 150
    User www-data
    Group www-data
    ${APACHE_MODULES.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`).join('\n    ')}
    Listen 127.0.0.1:${plainPort}
    Listen 127.0.0.1:${port} https
    <Directory />
      Require all denied
    </Directory>
    <Location />
      Require all granted
    </Location>
`,
  changes: ({ port, plainPort, pem, server: address }) => [
    [PEM, pem],
    [`https://${DOMAIN}/`, 'https://localhost/'],
    [`ServerName ${DOMAIN}`, 'ServerName localhost'],
    ['http://127.0.0.1:8080/', `http://${address}/`],
    ['<VirtualHost *:80>', `<VirtualHost *:${plainPort}>`],
    ['<VirtualHost *:443>', `<VirtualHost *:${port}>`],
  ],
  command: (conf) => ['apache2', '-D', 'FOREGROUND', '-f', conf],
});

/** Starts lighttpd with deploy/lighttpd.conf. */
export const startLighttpd = (server) => start({
  server,
  name: 'lighttpd',
  file: 'lighttpd.conf',
  changes: ({ home, port, plainPort, pem, serverPort }) => [
    [PEM, pem],
    [`https://${DOMAIN}`, 'https://localhost'],
    ['server.username = "www-data"\nserver.groupname = "www-data"\n', ''],
    ['server.document-root = "/var/empty"', `server.document-root = "${home}"\nserver.bind = "127.0.0.1"`],
    ['"port" => 8080', `"port" => ${serverPort}`],
    ['server.port = 80\n', `server.port = ${plainPort}\n`],
    ['== ":80"', `== "127.0.0.1:${plainPort}"`],
    ['== ":443"', `== "127.0.0.1:${port}"`],
  ],
  command: (conf) => ['lighttpd', '-D', '-f', conf],
});

/** Starts HAProxy with deploy/haproxy-tcp.cfg. `args` are further arguments. */
export const startHaproxyTcp = (server, { args = [] } = {}) => start({
  server,
  name: 'HAProxy',
  file: 'haproxy-tcp.cfg',
  changes: ({ home, port, plainPort, server: address }) => {
    const pems = ['fullchain.pem', 'privkey.pem'].map((name) => readFileSync(join(certificate().folder, name)));
    writeFileSync(join(home, 'signaling.pem'), Buffer.concat(pems), { mode: 0o600 });
    return [
      ['    user haproxy\n    group haproxy\n', ''],
      ['/etc/haproxy/signaling.pem', `${home}/signaling.pem`],
      [`https://${DOMAIN}`, 'https://localhost'],
      ['127.0.0.1:8080', address],
      ['bind :80\n', `bind 127.0.0.1:${plainPort}\n`],
      ['bind :443 ', `bind 127.0.0.1:${port} `],
    ];
  },
  command: (conf) => ['haproxy', '-db', ...args, '-f', conf],
});

/** Starts stunnel with deploy/stunnel.conf. */
export const startStunnel = (server) => start({
  server,
  name: 'stunnel',
  file: 'stunnel.conf',
  isPlain: false,
  before: 'foreground = yes\n',
  changes: ({ port, pem, server: address }) => [
    [PEM, pem],
    ['setuid = stunnel4\nsetgid = stunnel4\n', ''],
    ['accept = 443', `accept = 127.0.0.1:${port}`],
    ['connect = 127.0.0.1:8080', `connect = ${address}`],
  ],
  command: (conf) => ['stunnel', conf],
});

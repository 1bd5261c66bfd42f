// Proxies that no test of CI starts: Traefik and Envoy with their files from deploy/, and the others as docs/run/proxies.md says
// what each needs. Each start returns what `startNginx` of the harness returns.

import { chownSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { accepts, ask, certificate, eventually, folder, freePort, launch, onFreePorts, ready } from '../browser/harness.mjs';
import { start } from '../browser/other_proxies.mjs';
import { VENV } from './clients.mjs';

const DOMAIN = 'signaling.example.com';
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` };

/** Certificate and key in one file. */
function writePem(home) {
  const path = join(home, 'signaling.pem');
  const parts = ['fullchain.pem', 'privkey.pem'].map((name) => readFileSync(join(certificate().folder, name)));
  writeFileSync(path, Buffer.concat(parts), { mode: 0o600 });
  return path;
}

/** Some refuse to be root. */
const NOBODY = 65_534;

/**
 * Starts a proxy in a folder of its own: `prepare` writes its files there, and returns its command. `isUnprivileged` is one
 * that is started as a user who owns that folder.
 */
function startIn(name, prepare, { isUnprivileged = false } = {}) {
  return onFreePorts(async () => {
    const home = folder();
    const port = await freePort();
    const [program, ...args] = await prepare(home, port);
    const user = isUnprivileged ? { uid: NOBODY, gid: NOBODY } : {};
    if (isUnprivileged) for (const path of [home, ...readdirSync(home).map((file) => join(home, file))]) chownSync(path, NOBODY, NOBODY);
    const child = launch(program, args, { cwd: home, env, ...user });
    await ready(child, name, () => accepts(port));
    return { url: `https://localhost:${port}`, port, child, home };
  });
}

/** Starts Traefik with deploy/traefik.yml, and the static configuration that it asks for. */
export async function startTraefik(server) {
  const proxy = await startTraefikAlone(server);
  // It listens before it has read its files.
  await eventually(() => `Traefik has its routes; it said ${proxy.child.output}`,
    () => ask('GET', proxy.url, '/health').then(({ status }) => status === 200, () => false));
  return proxy;
}

const startTraefikAlone = (server) => start({
  server,
  name: 'Traefik',
  file: 'traefik.yml',
  changes: ({ home, port, plainPort, pem, server: address }) => {
    writeFileSync(join(home, 'static.yml'), `
global: { checkNewVersion: false, sendAnonymousUsage: false }
log: { level: ERROR }
entryPoints:
  web: { address: "127.0.0.1:${plainPort}" }
  websecure: { address: "127.0.0.1:${port}" }
providers: { file: { filename: ${home}/traefik.yml } }
`);
    return [
      [`Host(\`${DOMAIN}\`)`, 'Host(`localhost`)'],
      ['http://127.0.0.1:8080', `http://${address}`],
      ['tls:\n        certResolver: letsencrypt', 'tls: {}'],
      ['http:\n  routers:', `tls: { stores: { default: { defaultCertificate: { certFile: ${pem}/fullchain.pem, keyFile: ${pem}/privkey.pem } } } }\nhttp:\n  routers:`],
    ];
  },
  command: (conf, { home }) => [join(VENV, 'bin/traefik'), '--configFile', join(home, 'static.yml')],
});

/** Starts Envoy with deploy/envoy.yaml. */
export const startEnvoy = (server) => start({
  server,
  name: 'Envoy',
  file: 'envoy.yaml',
  isPlain: false,
  changes: ({ port, pem, serverPort }) => [
    [`/etc/letsencrypt/live/${DOMAIN}`, pem],
    [`domains: [${DOMAIN}]`, 'domains: ["*"]'],
    ['address: 0.0.0.0, port_value: 443', `address: 127.0.0.1, port_value: ${port}`],
    ['port_value: 8080', `port_value: ${serverPort}`],
  ],
  command: (conf) => [join(VENV, 'bin/envoy'), '--use-dynamic-base-id', '--log-level', 'error', '-c', conf],
});

/** The lines that hitch needs to terminate TLS for `backend`, with its PROXY header of version 2. */
function hitch(home, port, backend) {
  const conf = join(home, 'hitch.conf');
  writeFileSync(conf, `
frontend = { host = "127.0.0.1"; port = "${port}" }
backend = "[127.0.0.1]:${backend}"
pem-file = "${writePem(home)}"
alpn-protos = "http/1.1"
write-proxy-v2 = on
workers = 1
daemon = off
user = "root"
group = "root"
`);
  return ['hitch', '--config', conf];
}

/** Starts hitch alone, as a TCP proxy. */
export const startHitch = (server) => startIn('hitch', (home, port) => hitch(home, port, server.port));

/** Starts Varnish, with hitch in front of it. */
export async function startVarnish(server) {
  const varnish = await startIn('Varnish', (home, port) => {
    const vcl = join(home, 'signaling.vcl');
    writeFileSync(vcl, `vcl 4.1;
backend server { .host = "127.0.0.1"; .port = "${server.port}"; }
sub vcl_recv {
  set req.http.X-Forwarded-Proto = "https";
  if (req.http.Upgrade ~ "(?i)websocket") { return (pipe); }
  return (pass);
}
sub vcl_pipe {
  if (req.http.Upgrade) {
    set bereq.http.Upgrade = req.http.Upgrade;
    set bereq.http.Connection = req.http.Connection;
  }
}
`);
    mkdirSync(join(home, 'varnish'));
    return ['varnishd', '-F', '-j', 'none', '-n', join(home, 'varnish'), '-a', `127.0.0.1:${port},PROXY`, '-f', vcl];
  });
  const proxy = await startIn('hitch', (home, port) => hitch(home, port, varnish.port));
  return { ...proxy, reload: () => proxy.child.process.kill('SIGHUP') };
}

/** Starts Squid as an accelerator. */
export async function startSquid(server) {
  const proxy = await startIn('Squid', (home, port) => {
    writeFileSync(join(home, 'squid.conf'), `
https_port 127.0.0.1:${port} accel defaultsite=localhost tls-cert=${writePem(home)}
cache_peer 127.0.0.1 parent ${server.port} 0 no-query originserver name=server login=PASSTHRU
http_access allow all
request_header_add X-Forwarded-Proto "https" all
http_upgrade_request_protocols websocket allow all
cache deny all
memory_cache_shared off
access_log none
cache_log /dev/null
pid_filename ${home}/pid
coredump_dir ${home}
shutdown_lifetime 1 second
`);
    return ['squid', '-N', '-n', `field${port}`, '-f', join(home, 'squid.conf')];
  }, { isUnprivileged: true });
  return { ...proxy, reload: () => proxy.child.process.kill('SIGHUP') };
}

/** Starts Apache Traffic Server. */
export const startTrafficServer = (server) => startIn('Traffic Server', (home, port) => {
  const pem = writePem(home);
  const file = (name, text) => writeFileSync(join(home, name), text);
  const own = ['sysconfdir', 'datadir', 'localstatedir', 'runtimedir', 'logdir', 'cachedir'].map((name) => `${name}: ${home}\n`);
  file('runroot.yaml', `prefix: /usr\nexec_prefix: /usr\nbindir: /usr/bin\nsbindir: /usr/sbin\nincludedir: /usr/include
libdir: /usr/lib/trafficserver\nlibexecdir: /usr/lib/trafficserver/modules\n${own.join('')}`);
  file('storage.config', '');
  file('ip_allow.yaml', 'ip_allow: [{ apply: in, ip_addrs: 127.0.0.0/8, action: allow, methods: ALL }]\n');
  file('records.config', `
CONFIG proxy.config.http.server_ports STRING ${port}:ssl:ip-in=127.0.0.1
CONFIG proxy.config.url_remap.remap_required INT 1
CONFIG proxy.config.http.insert_squid_x_forwarded_for INT 1
CONFIG proxy.config.http.cache.http INT 0
CONFIG proxy.config.diags.show_location INT 0
`);
  file('ssl_multicert.config', `dest_ip=* ssl_cert_name=${pem}\n`);
  file('scheme.config', 'cond %{REMAP_PSEUDO_HOOK}\nset-header X-Forwarded-Proto "https"\n');
  file('remap.config', ['https http', 'wss ws'].map((schemes) => schemes.split(' ')).map(([from, to]) =>
    `map ${from}://localhost:${port}/ ${to}://127.0.0.1:${server.port}/ @plugin=header_rewrite.so @pparam=scheme.config\n`
    + `map ${from}://localhost/ ${to}://127.0.0.1:${server.port}/ @plugin=header_rewrite.so @pparam=scheme.config\n`).join(''));
  return ['traffic_server', `--run-root=${home}`];
}, { isUnprivileged: true });

/** Starts nginx with the example of its own documents, and the two headers that the server needs: it keeps its time-outs. */
export const startPlainNginx = (server) => startIn('nginx', (home, port) => {
  const { folder: pem } = certificate();
  writeFileSync(join(home, 'nginx.conf'), `
user root;
daemon off;
pid ${home}/pid;
error_log stderr;
events {}
http {
  access_log off;
  server {
    listen 127.0.0.1:${port} ssl;
    ssl_certificate ${pem}/fullchain.pem;
    ssl_certificate_key ${pem}/privkey.pem;
    location / {
      proxy_pass http://127.0.0.1:${server.port};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
  }
}
`);
  return ['nginx', '-p', home, '-c', join(home, 'nginx.conf')];
});

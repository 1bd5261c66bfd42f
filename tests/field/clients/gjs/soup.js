// libsoup by its major version, the first argument: 3.0 or 2.4, which differ in how they connect.
imports.gi.versions.Soup = ARGV[0];
const { GLib, Soup } = imports.gi;

const loop = new GLib.MainLoop(null, false);
const session = new Soup.Session();
const message = new Soup.Message({ method: 'GET', uri: ARGV[0] === '3.0'
  ? GLib.Uri.parse(GLib.getenv('ROOM_URL'), GLib.UriFlags.NONE) : new Soup.URI(GLib.getenv('ROOM_URL')) });
const priority = ARGV[0] === '3.0' ? [GLib.PRIORITY_DEFAULT] : [];

let connection; // kept, or it is collected and closed

session.websocket_connect_async(message, null, null, ...priority, null, (_, result) => {
  try {
    connection = session.websocket_connect_finish(result);
  } catch (error) {
    print(`refused ${message.status_code} ${error.message}`);
    return loop.quit();
  }
  connection.connect('message', (_connection, _type, bytes) => {
    const text = new TextDecoder().decode(bytes.toArray());
    print(text);
    const { type, from } = JSON.parse(text);
    if (type === 'auth_required') connection.send_text(JSON.stringify({ type: 'auth_token', token: GLib.getenv('TOKEN') }));
    if (type === 'offer') connection.send_text(JSON.stringify({ type: 'answer', answer: {}, to: from }));
  });
  connection.connect('closed', () => {
    print(`closed ${connection.get_close_code()} ${connection.get_close_data()}`);
    loop.quit();
  });
});
loop.run();

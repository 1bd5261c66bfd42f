// What a page of somebody's product does in a call. `page.evaluate` carries these functions into the
// browser as text, so each stands alone.

/** Logs in, enters a room, and calls everybody who is there: trickle ICE, video, and an echo. */
export async function startCall({ username, password, room, clientId, relayOnly }) {
  const login = await fetch('/auth/login', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ username, password }),
  });
  const { access_token: token } = await login.json();
  const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 320, height: 240 } });
  const socket = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/ws/${encodeURIComponent(room)}`);
  const call = { socket, connection: undefined, channel: undefined, heard: [], echoes: [], iceErrors: [], failure: undefined };
  window.call = call;
  const say = (message) => socket.send(JSON.stringify(message));

  const connectTo = (peer) => {
    const connection = new RTCPeerConnection({
      iceServers: call.iceServers,
      iceTransportPolicy: relayOnly ? 'relay' : 'all',
    });
    call.connection = connection;
    for (const track of camera.getTracks()) connection.addTrack(track, camera);
    connection.onicecandidate = ({ candidate }) => say({ type: 'ice_candidate', candidate, to: peer });
    connection.onicecandidateerror = ({ errorCode, errorText, url }) => call.iceErrors.push(`${url} ${errorCode} ${errorText}`);
    // Whoever is called sends back what it hears.
    connection.ondatachannel = ({ channel }) => { channel.onmessage = ({ data }) => channel.send(data); };
    return connection;
  };
  const take = {
    auth_required: () => say({ type: 'auth_token', token, clientId }),
    auth_success: (message) => { call.iceServers = message.iceServers; },
    users_in_room: async ({ users }) => {
      call.entered = true;
      for (const { client_id: peer } of users) {
        const connection = connectTo(peer);
        call.channel = connection.createDataChannel('echo');
        call.channel.onmessage = ({ data }) => call.echoes.push(data);
        await connection.setLocalDescription();
        say({ type: 'offer', offer: connection.localDescription, to: peer });
      }
    },
    offer: async ({ offer, from }) => {
      const connection = connectTo(from);
      await connection.setRemoteDescription(offer);
      await connection.setLocalDescription();
      say({ type: 'answer', answer: connection.localDescription, to: from });
    },
    answer: ({ answer }) => call.connection.setRemoteDescription(answer),
    ice_candidate: ({ candidate }) => call.connection.addIceCandidate(candidate ?? undefined),
    user_joined: () => {},
    user_left: () => {},
  };
  // One after the other: a candidate must not overtake the offer it belongs to.
  let turn = Promise.resolve();
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    call.heard.push(message);
    turn = turn.then(() => take[message.type](message)).catch((error) => { call.failure ??= `${message.type}: ${error}`; });
  };
}

/** How the call stands: what flows, and by which way. */
export async function callStatus() {
  const { connection, channel, heard, echoes, iceErrors, failure, entered } = window.call;
  const status = { entered: Boolean(entered), heard, echoes, iceErrors, failure, state: connection?.connectionState, channel: channel?.readyState };
  if (!connection) return status;
  const stats = [...(await connection.getStats()).values()];
  const byId = (id) => stats.find((entry) => entry.id === id);
  const transport = stats.find(({ type }) => type === 'transport');
  const pair = byId(transport?.selectedCandidatePairId);
  const local = byId(pair?.localCandidateId);
  return {
    ...status,
    local: local?.candidateType,
    relayProtocol: local?.relayProtocol,
    remote: byId(pair?.remoteCandidateId)?.candidateType,
    bytes: pair ? pair.bytesSent + pair.bytesReceived : 0,
    frames: stats.find(({ type, kind }) => type === 'inbound-rtp' && kind === 'video')?.framesDecoded ?? 0,
  };
}

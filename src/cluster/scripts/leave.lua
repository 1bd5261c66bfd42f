-- A member leaves, if it is still on that connection. ARGV: room, client, node.conn, why. Returns what is told outside.
local room, client, conn = ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('HGET', P .. 'room:' .. room, client)
if held and conn_of(held) == conn then
  left(room, client, held, node_of(conn), ARGV[4])
  closes(room)
end
return told

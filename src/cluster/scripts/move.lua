-- A member goes on on another node, if it is still on that connection. ARGV: room, client, node.conn that it is on,
-- node.conn that it will be on. The node that it comes to hears who else is there; the one that it leaves, who may not
-- have heard of it. Returns: 1, 0 where it is not on that connection, or 2 where the other node does not take it.
local room, client, from, to = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local held = redis.call('HGET', P .. 'room:' .. room, client)
if not held or conn_of(held) ~= from then return 0 end
local taker = node_of(to)
if not redis.call('ZSCORE', P .. 'nodes', taker) or redis.call('SISMEMBER', P .. 'closing', taker) == 1 then return 2 end
local seat = to .. string.sub(held, #from + 1)
local epoch = redis.call('INCR', P .. 'arrivals')
drop(room, client, held)
add(room, client, seat)
local nodes = {}
for _, node in ipairs(redis.call('HKEYS', P .. 'on:' .. room)) do
  if node ~= node_of(from) then nodes[#nodes + 1] = node end
end
for _, node in ipairs(nodes) do
  local everyone = node == taker and picture(room) or '{}'
  post(node, 'k', 'move', 'r', room, 'c', client, 'v', seat, 'f', from, 'e', epoch, 'm', everyone)
end
post(node_of(from), 'k', 'move', 'r', room, 'c', client, 'v', seat, 'f', from, 'e', epoch, 'n', cjson.encode(nodes))
return 1

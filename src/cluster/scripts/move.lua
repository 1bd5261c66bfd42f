-- A member moves to another node, if it is still on that connection. ARGV: room, client, the connection that it is on, the
-- one that it will be on. The node that it comes to gets the member list; the one that it leaves, the nodes that may not
-- have read of the move. Returns: 1, 0 where the member is not on that connection, or 2 where the other node does not take
-- it.
begin_essential()
local room, client, from, to = unpack(ARGV)
local current = redis.call('HGET', PREFIX .. 'room:' .. room, client)
if not current or connection_of(current) ~= from then return 0 end
local target = node_of(to)
if not redis.call('ZSCORE', PREFIX .. 'nodes', target) or redis.call('SISMEMBER', PREFIX .. 'closing', target) == 1 then
  return 2
end
recount_if_lost(room)
local record = to .. string.sub(current, #from + 1)
local epoch = redis.call('INCR', PREFIX .. 'arrivals')
end_for_good(from)
remove(room, client, current)
add(room, client, record)
local nodes = {}
for _, node in ipairs(redis.call('HKEYS', PREFIX .. 'on:' .. room)) do
  if node ~= node_of(from) then nodes[#nodes + 1] = node end
end
for _, node in ipairs(nodes) do
  local members = node == target and members_of(room) or '{}'
  post(node, 'kind', 'moved', 'room', room, 'client', client, 'record', record, 'from', from, 'epoch', epoch,
    'members', members)
end
post(node_of(from), 'kind', 'moved', 'room', room, 'client', client, 'record', record, 'from', from, 'epoch', epoch,
  'nodes', cjson.encode(nodes))
return 1

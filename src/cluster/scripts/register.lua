-- A node connects. ARGV: node, run id of this Redis. Returns: whether the node was known here, the id of the last entry of
-- its inbox, and the rooms in which it has members.
local node, run_id = unpack(ARGV)
-- What Redis has stored before it was started is not true any more: the nodes know better, and state it again.
if redis.call('GET', PREFIX .. 'life') ~= run_id then
  for _, room in ipairs(redis.call('HKEYS', PREFIX .. 'rooms')) do
    redis.call('DEL', PREFIX .. 'room:' .. room, PREFIX .. 'on:' .. room)
  end
  for _, other in ipairs(redis.call('ZRANGE', PREFIX .. 'nodes', 0, -1)) do
    redis.call('DEL', PREFIX .. 'inbox:' .. other, PREFIX .. 'seats:' .. other)
  end
  redis.call('DEL', PREFIX .. 'rooms', PREFIX .. 'nodes', PREFIX .. 'closing', PREFIX .. 'pulse', PREFIX .. 'members',
    PREFIX .. 'told')
  redis.call('SET', PREFIX .. 'life', run_id)
end
local is_known = redis.call('ZSCORE', PREFIX .. 'nodes', node)
redis.call('ZADD', PREFIX .. 'nodes', now() + LEASE, node)
if not is_known then redis.call('SREM', PREFIX .. 'closing', node) end
local hello = redis.call('XADD', PREFIX .. 'inbox:' .. node, '*', 'kind', 'hello')
return { is_known and 1 or 0, hello, redis.call('SMEMBERS', PREFIX .. 'seats:' .. node) }

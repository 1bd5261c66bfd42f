-- A node connects. ARGV: node, run id of this engine. Returns: whether it was known here, the id of the last entry of
-- its inbox, and the rooms in which it has seats.
local node, run = ARGV[1], ARGV[2]
-- What an engine brings from before it was started is not true any more: the nodes know better, and tell again.
if redis.call('GET', P .. 'life') ~= run then
  for _, room in ipairs(redis.call('HKEYS', P .. 'rooms')) do redis.call('DEL', P .. 'room:' .. room, P .. 'on:' .. room) end
  for _, other in ipairs(redis.call('ZRANGE', P .. 'nodes', 0, -1)) do
    redis.call('DEL', P .. 'inbox:' .. other, P .. 'seats:' .. other)
  end
  redis.call('DEL', P .. 'rooms', P .. 'nodes', P .. 'closing', P .. 'pulse', P .. 'members', P .. 'told')
  redis.call('SET', P .. 'life', run)
end
local known = redis.call('ZSCORE', P .. 'nodes', node)
redis.call('ZADD', P .. 'nodes', now() + LEASE, node)
if not known then redis.call('SREM', P .. 'closing', node) end
local hello = redis.call('XADD', P .. 'inbox:' .. node, '*', 'k', 'hello')
return { known and 1 or 0, hello, redis.call('SMEMBERS', P .. 'seats:' .. node) }

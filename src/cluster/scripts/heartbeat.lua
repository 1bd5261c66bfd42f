-- A node renews its lease. ARGV: node, the id of the last entry that it has read. Returns: "?" where the node is not known
-- (any more), else a node whose lease is over, or nothing.
local node, read = unpack(ARGV)
if not redis.call('ZSCORE', PREFIX .. 'nodes', node) then return '?' end
local time = now()
-- Where no node has renewed its lease for so long, Redis was stopped meanwhile, not the nodes: all of them get a new one.
if time - tonumber(redis.call('GET', PREFIX .. 'pulse') or time) > LEASE / 2 then
  for _, other in ipairs(redis.call('ZRANGE', PREFIX .. 'nodes', 0, -1)) do
    redis.call('ZADD', PREFIX .. 'nodes', time + LEASE, other)
  end
end
redis.call('SET', PREFIX .. 'pulse', string.format('%.3f', time))
redis.call('ZADD', PREFIX .. 'nodes', time + LEASE, node)
redis.call('XTRIM', PREFIX .. 'inbox:' .. node, 'MINID', read)
return redis.call('ZRANGEBYSCORE', PREFIX .. 'nodes', '-inf', time, 'LIMIT', 0, 1)[1] or ''

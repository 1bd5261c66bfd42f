-- A node lives. ARGV: node, the last id that it has read. Returns: "?" where it is not known (any more), else a node
-- whose lease is over, or nothing.
local node, read = ARGV[1], ARGV[2]
if not redis.call('ZSCORE', P .. 'nodes', node) then return '?' end
local time = now()
-- If nobody has beaten for so long, it was the engine that slept: no news is not bad news.
if time - tonumber(redis.call('GET', P .. 'pulse') or time) > LEASE / 2 then
  for _, other in ipairs(redis.call('ZRANGE', P .. 'nodes', 0, -1)) do redis.call('ZADD', P .. 'nodes', time + LEASE, other) end
end
redis.call('SET', P .. 'pulse', string.format('%.3f', time))
redis.call('ZADD', P .. 'nodes', time + LEASE, node)
redis.call('XTRIM', P .. 'inbox:' .. node, 'MINID', read)
return redis.call('ZRANGEBYSCORE', P .. 'nodes', '-inf', time, 'LIMIT', 0, 1)[1] or ''

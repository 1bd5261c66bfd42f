-- A node renews its lease. ARGV: node, its process, what others may know of it, the id of the last entry that it has read,
-- its fingerprint, the highest epoch that it knows. Returns: a fault, and a node whose lease is over, or nothing. The faults:
-- "unknown" where the node is not known (any more), "replaced" where another process has its name, "foreign" where another
-- deployment is here, "lost" where its inbox lacks entries, "overrun" where it does not read. Without one: "".
begin_essential()
local node, process, facts, read, fingerprint, epoch = unpack(ARGV)
local inbox, holder = PREFIX .. 'inbox:' .. node, redis.call('HGET', PREFIX .. 'processes', node)
if holder and process_of(holder) ~= process then return { 'replaced', '' } end
if not redis.call('ZSCORE', PREFIX .. 'nodes', node) then return { 'unknown', '' } end
if (redis.call('GET', PREFIX .. 'fingerprint') or fingerprint) ~= fingerprint then return { 'foreign', '' } end
-- The entry that was read last is kept: without it, others are missing as well.
if #redis.call('XRANGE', inbox, read, read) == 0 then return { 'lost', '' } end
if redis.call('XLEN', inbox) > INBOX_MAX_LEN then return { 'overrun', '' } end
local time = now()
-- Where no node has renewed its lease for so long, Redis was stopped meanwhile, not the nodes: all of them get a new one.
if time - tonumber(redis.call('GET', PREFIX .. 'pulse') or 0) > LEASE / 2 then
  for _, other in ipairs(redis.call('ZRANGE', PREFIX .. 'nodes', 0, -1)) do
    redis.call('ZADD', PREFIX .. 'nodes', time + LEASE, other)
  end
end
shorten_leases(time)
redis.call('SET', PREFIX .. 'pulse', string.format('%.3f', time))
redis.call('ZADD', PREFIX .. 'nodes', time + LEASE, node)
redis.call('HSET', PREFIX .. 'processes', node, process .. ' ' .. facts)
hold_fingerprint(fingerprint)
raise_epoch(epoch)
redis.call('XTRIM', inbox, 'MINID', read)
redis.call('ZREMRANGEBYSCORE', PREFIX .. 'ended', '-inf', string.format('%.3f', time))
return { '', redis.call('ZRANGEBYSCORE', PREFIX .. 'nodes', '-inf', time, 'LIMIT', 0, 1)[1] or '' }

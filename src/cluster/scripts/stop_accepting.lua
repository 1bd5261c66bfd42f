-- A node stops, and takes no membership any more that moves. ARGV: node. It has read of all that it has taken once it reads
-- this entry.
begin_essential()
local node = ARGV[1]
redis.call('SADD', PREFIX .. 'closing', node)
post(node, 'kind', 'closing')
return 1

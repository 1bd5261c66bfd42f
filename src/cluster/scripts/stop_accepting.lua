-- A node stops, and takes no seat any more that moves. ARGV: node. Of those that it has taken it has heard once it hears
-- of this.
local node = ARGV[1]
redis.call('SADD', P .. 'closing', node)
post(node, 'k', 'closing')
return 1

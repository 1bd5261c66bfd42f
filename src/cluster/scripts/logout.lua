-- Tokens that were logged out. ARGV: a line for each, which begins with the time at which the token ends by itself.
for _, line in ipairs(ARGV) do
  if redis.call('ZADD', P .. 'logouts', 'NX', string.match(line, '^%d+'), line) == 1 then
    for _, node in ipairs(redis.call('ZRANGE', P .. 'nodes', 0, -1)) do post(node, 'k', 'logout', 'd', line) end
  end
end
redis.call('ZREMRANGEBYSCORE', P .. 'logouts', '-inf', now())
return 1

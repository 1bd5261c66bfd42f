-- Tokens that were logged out. ARGV: a line for each, which begins with the time at which the token ends by itself.
begin_essential()
for _, line in ipairs(ARGV) do
  if redis.call('ZADD', PREFIX .. 'logouts', 'NX', string.match(line, '^%d+'), line) == 1 then
    post_to_all('kind', 'logout', 'body', line)
  end
end
redis.call('ZREMRANGEBYSCORE', PREFIX .. 'logouts', '-inf', now())
return 1

-- Moderation rules. ARGV: each as a JSON object, with its "key", which rules about the same thing share, and its "rank", a
-- text that is greater for a newer rule: Rust decides which is newer, this only compares. The newest rule of each key is
-- stored, and every node gets it.
begin_essential()
for _, line in ipairs(ARGV) do
  local rule = cjson.decode(line)
  local known = redis.call('HGET', PREFIX .. 'orders', rule.key)
  if not known or (cjson.decode(known).rank or '') < rule.rank then
    redis.call('HSET', PREFIX .. 'orders', rule.key, line)
    post_to_all('kind', 'rule', 'body', line)
  end
end
return 1

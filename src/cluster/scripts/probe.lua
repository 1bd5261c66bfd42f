-- Runs commands one after the other, for doctor. ARGV: each with its arguments, separated by spaces. Returns those that are
-- refused, each with the error behind its name.
local refused = {}
for _, line in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(line, '%S+') do words[#words + 1] = word end
  local answer = redis.pcall(unpack(words))
  if type(answer) == 'table' and answer.err then refused[#refused + 1] = words[1] .. ' ' .. answer.err end
end
return refused

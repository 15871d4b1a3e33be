-- Become or stay the one who does the upkeep. ARGV: who, milliseconds. Answers '1', or '' when another one does.
-- A newer program takes over from an older one, which would not wake anybody for steps that it does not know.
local key = P .. ':leader'
local who = ARGV[1] .. ' v' .. VERSION
local leader = redis.call('GET', key)
if leader and leader ~= who and tonumber(string.match(leader, ' v(%d+)$') or '1') >= VERSION then
  return ''
end
redis.call('SET', key, who, 'PX', tonumber(ARGV[2]))
return '1'

-- Become or stay the one who does the upkeep. ARGV: who, milliseconds. Answers '1', or '' when another one does.
local key = P .. ':leader'
local leader = redis.call('GET', key)
if leader and leader ~= ARGV[1] then
  return ''
end
redis.call('SET', key, ARGV[1], 'PX', tonumber(ARGV[2]))
return '1'

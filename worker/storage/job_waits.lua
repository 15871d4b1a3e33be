-- How long the job that waits longest does, for each stage and priority. ARGV: stage, priority, stage, priority, …
-- Answers seconds, one for each pair, 0 where none waits. Writes nothing, so that it is told of a full store, too.
local LOOKED_THROUGH = 100
local answer = {}
for i = 1, #ARGV, 2 do
  local waiting = waiting_key({stage = ARGV[i], priority = ARGV[i + 1]})
  local waited_s = 0
  local first = redis.call('ZRANGEBYSCORE', waiting, '-inf', stamp(NOW), 'WITHSCORES', 'LIMIT', 0, LOOKED_THROUGH)
  for n = 1, #first, 2 do
    if waits(first[n]) then
      waited_s = NOW - tonumber(first[n + 1])
      break
    end
  end
  answer[#answer + 1] = stamp(waited_s)
end
return answer

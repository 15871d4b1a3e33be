-- Forget in the indexes what has expired by itself. ARGV: stage, priority, stage, priority, …
for state in pairs(FINAL) do
  redis.call('ZREMRANGEBYSCORE', P .. ':state:' .. state, '-inf', stamp(NOW - RECORD_KEPT_S - DAY_S))
end
-- A program of before this index leaves in it what it works on or has ended.
for i = 1, #ARGV, 2 do
  local waiting = waiting_key({stage = ARGV[i], priority = ARGV[i + 1]})
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', stamp(NOW), 'LIMIT', 0, 1000)) do
    if not waits(id) then
      redis.call('ZREM', waiting, id)
    end
  end
end

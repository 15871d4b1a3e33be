-- Who waits to be woken now; each is given out again only after some seconds. ARGV: priority, how many, seconds
-- Answers {job, stage, job, stage, …}, longest due first.
local due = P .. ':due:' .. ARGV[1]
if redis.call('EXISTS', P .. ':paused') == 1 then
  return {}
end
local answer = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', stamp(NOW), 'LIMIT', 0, tonumber(ARGV[2]))) do
  local stage = redis.call('HGET', job_key(id), 'stage')
  if stage then
    redis.call('ZADD', due, stamp(NOW + tonumber(ARGV[3])), id)
    answer[#answer + 1] = id
    answer[#answer + 1] = stage
  else
    redis.call('ZREM', due, id)
  end
end
return answer

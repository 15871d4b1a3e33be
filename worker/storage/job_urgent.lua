-- Who goes before all that wait: jobs whose lease ran out, and reviews that are paid for and not posted. Each is given
-- out again only after some seconds. ARGV: how many, seconds
-- Answers {job, stage, priority, job, stage, priority, …}, longest due first. An index of its own: among the due jobs
-- they would stand behind the whole queue, and a takeover would take as long as that.
local urgent = P .. ':urgent'
if redis.call('EXISTS', P .. ':paused') == 1 then
  return {}
end
local answer = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', urgent, '-inf', stamp(NOW), 'LIMIT', 0, tonumber(ARGV[1]))) do
  local found = redis.call('HMGET', job_key(id), 'stage', 'priority')
  if found[1] then
    redis.call('ZADD', urgent, stamp(NOW + tonumber(ARGV[2])), id)
    answer[#answer + 1] = id
    answer[#answer + 1] = found[1]
    answer[#answer + 1] = found[2]
  else
    redis.call('ZREM', urgent, id)
  end
end
return answer

-- Whose lease ran out; each is given out again only after some seconds. ARGV: how many, seconds
-- Answers {job, stage, priority, job, stage, priority, …}, longest lost first. An index of its own: among the due jobs
-- they would stand behind all that wait, and a takeover would take as long as the queue.
local leases = P .. ':leases'
if redis.call('EXISTS', P .. ':paused') == 1 then
  return {}
end
local answer = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', stamp(NOW), 'LIMIT', 0, tonumber(ARGV[1]))) do
  local found = redis.call('HMGET', job_key(id), 'lease_until', 'stage', 'priority')
  if found[1] then
    redis.call('ZADD', leases, stamp(NOW + tonumber(ARGV[2])), id)
    answer[#answer + 1] = id
    answer[#answer + 1] = found[2]
    answer[#answer + 1] = found[3]
  else
    redis.call('ZREM', leases, id)
  end
end
return answer

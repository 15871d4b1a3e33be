-- Go on to another state. ARGV: id, token, state, reason, wait seconds, what becomes of the lease:
-- 'keep', 'release', 'hand back' (this attempt does not count), 'died' (it counts as one that ended without a word).
-- Answers '1', or '' when another one owns the job.
local id, token, state, reason, wait_s, lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local key = job_key(id)
local job = owned(id, token)
if not job then
  -- The same call again, after its answer was lost with the connection.
  local now = redis.call('HMGET', key, 'token', 'state', 'lease_until')
  return now[1] == token and now[2] == state and not now[3] and '1' or ''
end
if state == 'superseded' and not job.superseded_by then
  redis.call('HSET', key, 'superseded_by', redis.call('HGET', change_key(ref_of(job)), 'head') or '')
end
if state == 'reviewed' and job.stage ~= 'publish' then
  -- The review is paid for; what went wrong until here does not count against publishing it.
  redis.call('ZREM', waiting_key(job), id)
  job.stage = 'publish'
  job.deaths = '0'
  redis.call('HSET', key, 'stage', 'publish', 'attempt', 0, 'deaths', 0)
  set_waiting(id, job, tonumber(job.lease_until))
end
if lease == 'died' and died(id, job, reason) then
  return '1'
end
if lease == 'hand back' and tonumber(job.attempt) > 0 then
  redis.call('HINCRBY', key, 'attempt', -1)
end
move(id, job, state, reason)
if lease ~= 'keep' and not FINAL[state] then
  end_lease(id, job)
  redis.call('HSET', key, 'not_before', stamp(NOW + wait_s))
  set_due(id, job, math.max(NOW + wait_s, NOW + (lease == 'release' and WAKE_GRACE_S or 0)))
  set_waiting(id, job, NOW + wait_s)
end
return '1'

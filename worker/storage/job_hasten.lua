-- Let deferred jobs wait no longer. ARGV: reason, how many to pass over, how many to look at
-- Answers {how many were looked at, how many of them are due now}.
local reason, from, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local ids = redis.call('ZRANGE', P .. ':state:deferred', from, from + count - 1)
local hastened = 0
for _, id in ipairs(ids) do
  local job = hash(job_key(id))
  local is_ours = job.state == 'deferred' and tonumber(job.version or '1') <= VERSION
  if is_ours and not is_leased(job) and tonumber(job.not_before or '0') > NOW then
    redis.call('HSET', job_key(id), 'not_before', stamp(NOW))
    set_due(id, job, NOW)
    set_waiting(id, job, NOW)
    decide(id, 'job.hastened', reason)
    hastened = hastened + 1
  end
end
return {#ids, hastened}

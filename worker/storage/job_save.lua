-- Store one checkpoint. ARGV: id, token, name, value. Answers '1', or '' when another one owns the job.
local key = job_key(ARGV[1])
local job = redis.call('HMGET', key, 'token', 'lease_until', 'version')
if job[1] ~= ARGV[2] or not job[2] then
  return ''
end
if tonumber(job[3] or '1') < VERSION then
  -- An older program may not be able to read what it would go on from.
  redis.call('HSET', key, 'version', VERSION)
end
redis.call('HSET', key .. ':saved', ARGV[3], ARGV[4])
return '1'

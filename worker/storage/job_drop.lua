-- Remove a dead letter for good. ARGV: id. Answers '1', or '' when there is no such dead letter.
local id = ARGV[1]
local key = job_key(id)
local job = hash(key)
if job.state ~= 'failed' then
  return ''
end
redis.call('DEL', key, key .. ':saved', key .. ':log')
redis.call('ZREM', P .. ':state:failed', id)
redis.call('ZREM', P .. ':notes', id)
redis.call('ZREM', change_key(ref_of(job)) .. ':jobs', id)
return '1'

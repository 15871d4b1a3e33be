-- Store one checkpoint. ARGV: id, token, name, value. Answers '1', or '' when another one owns the job.
if redis.call('HGET', job_key(ARGV[1]), 'token') ~= ARGV[2] or not redis.call('HGET', job_key(ARGV[1]), 'lease_until') then
  return ''
end
redis.call('HSET', job_key(ARGV[1]) .. ':saved', ARGV[3], ARGV[4])
return '1'

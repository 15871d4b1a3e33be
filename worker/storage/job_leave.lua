-- Leave a job to a newer program. ARGV: id, token (empty: nobody holds it, a message for it could not be read), worker then,
-- reason, the program's version, a random number below 1. Answers '1', or '' when another one owns the job.
local id, token, worker, reason, program, spread = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local key = job_key(id)
local job = hash(key)
if token == '' then
  if not job.state or FINAL[job.state] or is_leased(job) then
    return ''
  end
  leave(id, job, worker, reason, spread)
  return '1'
end
if job.token ~= token then
  return ''
end
if not job.lease_until then
  -- The same call again, after its answer was lost with the connection.
  return job.left_by == program and '1' or ''
end
if tonumber(job.attempt) > 0 then
  redis.call('HINCRBY', key, 'attempt', -1)
end
end_lease(id, job)
move(id, job, job.stage == 'publish' and 'reviewed' or 'queued', 'left to a newer version of this program')
leave(id, job, job.worker, reason, spread)
if job.left then
  -- The next worker of this version need not try.
  redis.call('HSET', key, 'left_by', program)
end
return '1'

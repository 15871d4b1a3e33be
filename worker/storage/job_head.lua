-- Write down the head of a job that was accepted without one. ARGV: id, token, head
-- Answers {'1'}, {''} when another one owns the job, or {'taken', job} when that head has a job already, or a head was
-- accepted while the forge was asked: what the forge said may be older than that.
local id, head = ARGV[1], ARGV[3]
local job = owned(id, ARGV[2])
if not job then
  return {''}
end
if job.head == head then
  return {'1'}
end
local change = change_key(ref_of(job))
local digest = redis.sha1hex(table.concat({job.forge, job.repository, job.number, head, job.settings_hash}, '\0'))
local other = redis.call('HGET', change, 'key:' .. digest)
local theirs = other and redis.call('HGET', job_key(other), 'state')
if theirs and theirs ~= 'failed' and theirs ~= 'superseded' and theirs ~= 'skipped' and job.forced ~= '1' then
  move(id, job, 'skipped', 'the head ' .. head .. ' already has job ' .. other .. ', which is ' .. theirs)
  return {'taken', other}
end
local known = redis.call('HMGET', change, 'job', 'head', 'generation')
local current = known[1]
if tonumber(job.generation) < tonumber(known[3] or '0') then
  redis.call('HSET', job_key(id), 'superseded_by', known[2])
  move(id, job, 'superseded', 'a newer head was accepted: ' .. known[2])
  return {'taken', current}
end
local old = current and current ~= id and hash(job_key(current)) or {}
if old.state and not FINAL[old.state] then
  redis.call('HSET', job_key(current), 'superseded_by', head)
  if not is_leased(old) then
    move(current, old, 'superseded', 'a newer head was accepted: ' .. head)
  end
end
local generation = redis.call('HINCRBY', change, 'generation', 1)
redis.call('HSET', change, 'job', id, 'head', head, 'key:' .. digest, id)
redis.call('HSET', job_key(id), 'head', head, 'generation', generation)
decide(id, 'head.noted', head)
return {'1'}

-- Take the lease. ARGV: id, worker, lease seconds, states it may be in, separated by commas, a nonce of the call, the
-- program's version, a random number below 1
-- Answers {'', reason} or {token, field, value, field, value, …}.
local id, worker, lease_s, states = ARGV[1], ARGV[2], tonumber(ARGV[3]), ',' .. ARGV[4] .. ','
local nonce, program, spread = ARGV[5], ARGV[6], tonumber(ARGV[7])
local key = job_key(id)
local job = hash(key)
if not job.state then
  return {'', 'there is no such job'}
end
if FINAL[job.state] then
  return {'', 'already ' .. job.state}
end
if is_leased(job) and job.nonce == nonce then
  -- The same call again, after its answer was lost with the connection.
  local answer = flat(job)
  table.insert(answer, 1, job.token)
  return answer
end
local paused = redis.call('GET', P .. ':paused')
if paused then
  return {'', 'the fleet is paused: ' .. paused}
end
if is_leased(job) then
  return {'', 'leased by ' .. (job.worker or 'another worker')}
end
local newest = redis.call('HMGET', change_key(ref_of(job)), 'generation', 'head')
if tonumber(job.generation) < tonumber(newest[1] or '0') then
  local newer = job.superseded_by or newest[2] or ''
  redis.call('HSET', key, 'superseded_by', newer)
  move(id, job, 'superseded', 'a newer head was accepted: ' .. newer)
  return {'', 'superseded by ' .. newer}
end
if tonumber(job.not_before or '0') > NOW then
  return {'', 'not before ' .. job.not_before}
end
local beyond = beyond_us(job, program)
if beyond then
  leave(id, job, worker, beyond, spread)
  return {'', beyond}
end
-- A deferred job goes on where it stopped.
local publishes = job.stage == 'publish'
local state = job.state
if state == 'deferred' then
  state = publishes and 'reviewed' or 'queued'
end
if not string.find(states, ',' .. state .. ',', 1, true) then
  return {'', 'it is ' .. job.state}
end
-- A lease that ran out and was never given back: whoever had it died.
if job.lease_until and died(id, job, 'attempt ' .. job.attempt .. ' by ' .. (job.worker or '?') .. ' ended without a word') then
  return {'', 'failed: ' .. job.reason}
end
-- A store that was emptied, or that lacks its last writes as a replica does that was promoted, must not give out again
-- a token that somebody still holds: a token is the time in microseconds.
local last = tonumber(redis.call('GET', P .. ':token') or '0')
job.token = string.format('%.0f', math.max(last + 1, NOW * 1000000))
redis.call('SET', P .. ':token', job.token)
job.attempt = tostring(tonumber(job.attempt or '0') + 1)
no_longer_left(id, job)
job.lease_until = stamp(NOW + lease_s)
job.worker = worker
redis.call('HSET', key, 'token', job.token, 'attempt', job.attempt, 'worker', worker, 'nonce', nonce)
local working = publishes and 'publishing' or 'running'
local words = 'attempt ' .. job.attempt .. ' by ' .. worker
if job.state == working then
  decide(id, 'job.taken_over', words)
end
move(id, job, working, words)
set_lease(id, job, NOW + lease_s)
local answer = flat(job)
table.insert(answer, 1, job.token)
return answer

#!lua
-- (The line above has the server refuse a script as a whole when it is out of memory or a replica: without it, the
-- first half of a step could be written. It needs Redis 7 or Valkey.)
--
-- What a job record is in Redis. This text stands in front of every other job_*.lua, which are one atomic step each.
--
-- KEYS[1] is the prefix. It holds a hash tag, so that in a cluster all keys of this program lie in one slot and the
-- keys that are built from it here may be touched. Times are Unix seconds by the server's clock, as text with six
-- decimals: Lua would round them.
--
--   P:job:<id>               hash   the record; fields this version does not know are never touched
--   P:job:<id>:saved         hash   checkpoint name -> bytes
--   P:job:<id>:log           list   decisions, oldest first, at most LOG_LENGTH
--   P:change:<ref>           hash   generation, head, job (the current one), key:<digest> -> job, round:<digest>
--   P:change:<ref>:jobs      zset   job -> created_at
--   P:delivery:<forge>:<id>  string job
--   P:state:<state>          zset   job -> created_at; in a final state, when it came into it
--   P:due:<priority>         zset   job that is not final -> when somebody should look at it next
--   P:waiting:<stage>:<priority>
--                            zset   job that is not final -> since when it could be worked on; in a lease, its end
--   P:open                   hash   forge:repository -> how many of its jobs are not final, batches left out
--   P:urgent                 zset   job that is worked on, or reviewed -> when somebody must look at it next
--   P:notes                  zset   dead letter whose change was not told yet -> when to tell it
--   P:left                   zset   job that waits for a worker of a newer program -> since when
--   P:token                  string last fencing token
--   P:paused                 string reason, while the fleet is paused
local P = KEYS[1]
local clock = redis.call('TIME')
local NOW = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

-- The record's version is that of the oldest program that can work on it: `RECORD_VERSION` of worker/core/job.py, of
-- whoever made it, or saved a checkpoint for it. An older program touches nothing of a newer record but the fields
-- left_at, left_times, left_by and left, which all know, and its place in the indexes.
local VERSION = @VERSION@
local DAY_S = 86400
local RECORD_KEPT_S = 30 * DAY_S
local SAVED_KEPT_S = 1 * DAY_S
local SAVED_OF_FAILED_KEPT_S = 7 * DAY_S
local CHANGE_KEPT_S = 90 * DAY_S
-- GitHub lets a delivery be sent again for three days.
local DELIVERY_KEPT_S = 7 * DAY_S
local LOG_LENGTH = 200
-- Whoever queues a job wakes a worker for it; only after this time is it taken for forgotten.
local WAKE_GRACE_S = 2
local MAX_DEATHS = 3
-- A job that only a newer program can work on is looked at again after so long, doubled each time up to the longest.
local LEFT_WAIT_S = 5
local LONGEST_LEFT_WAIT_S = 30
-- Where no newer worker has come for so long, none is on its way: somebody must hear of it.
local LEFT_FOR_S = DAY_S
-- So many open jobs of one repository go first; those beyond them let other repositories pass.
local CROWD = 10

local STATES = {
  queued = true, running = true, reviewed = true, publishing = true, done = true, skipped = true, superseded = true,
  deferred = true, failed = true,
}
local STAGES = {review = true, publish = true}
local FINAL = {done = true, skipped = true, superseded = true, failed = true}

local function stamp(seconds)
  return string.format('%.6f', seconds)
end

local function job_key(id)
  return P .. ':job:' .. id
end

local function change_key(ref)
  return P .. ':change:' .. ref
end

local function hash(key)
  local flat = redis.call('HGETALL', key)
  local map = {}
  for i = 1, #flat, 2 do
    map[flat[i]] = flat[i + 1]
  end
  return map
end

local function ref_of(job)
  return job.forge .. ':' .. job.repository .. '#' .. job.number
end

-- A lease that stands: somebody who is taken to be alive has the job.
local function is_leased(job)
  return job.lease_until ~= nil and tonumber(job.lease_until) > NOW
end

local function decide(id, event, detail)
  local key = job_key(id) .. ':log'
  redis.call('RPUSH', key, cjson.encode({stamp(NOW), event, detail}))
  redis.call('LTRIM', key, -LOG_LENGTH, -1)
end

local function set_due(id, job, when)
  if job.lease_until or job.stage == 'publish' then
    redis.call('ZADD', P .. ':urgent', stamp(when), id)
  else
    redis.call('ZREM', P .. ':urgent', id)
  end
  redis.call('ZADD', P .. ':due:' .. job.priority, stamp(when), id)
end

local function waiting_key(job)
  return P .. ':waiting:' .. (job.stage or 'review') .. ':' .. job.priority
end

-- From then on the job waits for somebody: unlike its place among the due ones, no wake-up moves that.
local function set_waiting(id, job, since)
  redis.call('ZADD', waiting_key(job), stamp(since), id)
end

-- Whether nobody has the job of an index of those that wait, and it has not ended.
local function waits(id)
  local job = hash(job_key(id))
  return job.state ~= nil and not FINAL[job.state] and not is_leased(job)
end

-- Count the open jobs of a repository.
local function count_open(job, by)
  local repository = job.forge .. ':' .. job.repository
  if redis.call('HINCRBY', P .. ':open', repository, by) <= 0 then
    redis.call('HDEL', P .. ':open', repository)
  end
end

-- Give the job to whoever has just claimed it, or beats for it.
local function set_lease(id, job, until_s)
  job.lease_until = stamp(until_s)
  redis.call('HSET', job_key(id), 'lease_until', job.lease_until)
  set_due(id, job, until_s)
  set_waiting(id, job, until_s)
end

local function end_lease(id, job)
  redis.call('HDEL', job_key(id), 'lease_until')
  job.lease_until = nil
end

-- Somebody can work on it after all, or it has ended.
local function no_longer_left(id, job)
  if job.left then
    redis.call('HDEL', job_key(id), 'left', 'left_at', 'left_times', 'left_by')
    redis.call('ZREM', P .. ':left', id)
    job.left = nil
  end
end

-- Move to another state. A final one ends lease and wake-ups, and sets when the record goes.
local function move(id, job, state, reason)
  local key = job_key(id)
  if job.state ~= state then
    if job.state then
      redis.call('ZREM', P .. ':state:' .. job.state, id)
    end
    -- The record of a job that has ended goes so long after its end, and so does its line in the index.
    redis.call('ZADD', P .. ':state:' .. state, FINAL[state] and stamp(NOW) or job.created_at, id)
    decide(id, 'job.' .. state, reason)
  end
  redis.call('HSET', key, 'state', state, 'reason', reason, 'updated_at', stamp(NOW))
  local was_open = job.state ~= nil and not FINAL[job.state]
  local is_open = not FINAL[state]
  if was_open ~= is_open and job.priority ~= 'batch' then
    count_open(job, is_open and 1 or -1)
  end
  job.state = state
  job.reason = reason
  if FINAL[state] then
    end_lease(id, job)
    no_longer_left(id, job)
    redis.call('ZREM', P .. ':due:' .. job.priority, id)
    redis.call('ZREM', P .. ':urgent', id)
    redis.call('ZREM', waiting_key(job), id)
    redis.call('EXPIRE', key, RECORD_KEPT_S)
    redis.call('EXPIRE', key .. ':log', RECORD_KEPT_S)
    redis.call('EXPIRE', key .. ':saved', state == 'failed' and SAVED_OF_FAILED_KEPT_S or SAVED_KEPT_S)
    if state == 'failed' then
      redis.call('ZADD', P .. ':notes', stamp(NOW), id)
    end
  end
end

-- Start the current stage anew: nothing counts against the job any more.
local function queue_again(id, job, when, reason)
  local key = job_key(id)
  redis.call('PERSIST', key)
  redis.call('PERSIST', key .. ':log')
  redis.call('PERSIST', key .. ':saved')
  redis.call('ZREM', P .. ':notes', id)
  redis.call('HDEL', key, 'superseded_by')
  end_lease(id, job)
  if job.stage == 'publish' and redis.call('HEXISTS', key .. ':saved', 'report') == 0 then
    -- The report was kept for some days after the end, and those are over.
    job.stage = 'review'
    redis.call('HSET', key, 'stage', 'review')
  end
  redis.call('HSET', key, 'attempt', 0, 'deaths', 0, 'not_before', stamp(when))
  move(id, job, job.stage == 'publish' and 'reviewed' or 'queued', reason)
  set_due(id, job, math.max(when, NOW + WAKE_GRACE_S))
  set_waiting(id, job, when)
end

-- One more attempt ended without a word. The third one is the last.
local function died(id, job, reason)
  job.deaths = tostring(tonumber(job.deaths or '0') + 1)
  redis.call('HSET', job_key(id), 'deaths', job.deaths)
  decide(id, 'attempt.died', reason)
  if tonumber(job.deaths) >= MAX_DEATHS then
    move(id, job, 'failed', 'died ' .. job.deaths .. ' times, the last time: ' .. reason)
    return true
  end
  return false
end

-- Why only a newer program can work on a job, in words; nil when this one can. `program` is its own version.
local function beyond_us(job, program)
  local what = nil
  if tonumber(job.version or '1') > VERSION then
    what = 'its record is of version ' .. job.version .. ', and version ' .. VERSION .. ' is known here'
  elseif not STATES[job.state] then
    what = 'it is ' .. job.state .. ', which is not known here'
  elseif job.stage and not STAGES[job.stage] then
    what = 'its next step is ' .. job.stage .. ', which is not known here'
  elseif job.left_by == program then
    return job.left
  end
  return what and 'it needs a newer version of this program than ' .. program .. ' (' .. what .. '): upgrade the workers'
end

-- Leave a job to a newer program: no attempt is counted. It stays due, so that somebody is woken for it now and then;
-- after a day in vain it is a dead letter, which its change is told. `spread` is at least 0 and less than 1.
local function leave(id, job, worker, reason, spread)
  local key = job_key(id)
  if not redis.call('ZSCORE', P .. ':due:' .. job.priority, id) then
    -- Nobody is woken for it: it has come to an end that only a newer program knows.
    return
  end
  local since = tonumber(job.left_at or NOW)
  if NOW - since > LEFT_FOR_S then
    move(id, job, 'failed', 'no newer worker came within a day: ' .. reason)
    return
  end
  local times = redis.call('HINCRBY', key, 'left_times', 1)
  redis.call('HSET', key, 'left', reason, 'left_at', stamp(since))
  redis.call('ZADD', P .. ':left', stamp(since), id)
  if job.left ~= reason then
    decide(id, 'job.left', 'by ' .. worker .. ': ' .. reason)
  end
  job.left = reason
  local wait_s = math.min(LEFT_WAIT_S * 2 ^ (times - 1), LONGEST_LEFT_WAIT_S)
  set_due(id, job, NOW + wait_s * (1 + spread))
end

-- The record when `token` still owns it, else nil: a late writer changes nothing.
local function owned(id, token)
  local job = hash(job_key(id))
  if job.lease_until and job.token == token then
    return job
  end
  return nil
end

local function flat(job)
  local list = {}
  for name, value in pairs(job) do
    list[#list + 1] = name
    list[#list + 1] = value
  end
  return list
end

-- Take in what a delivery or a caller asks for: dedupe, supersede, write, schedule.
-- ARGV: forge, repository, number, head, priority, delivery, settings hash, settle seconds, force ('1' or '')
-- Answers {job, state, '1' when the job was made by this call, its priority then}.
local forge, repository, number, head, priority = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local delivery, settings, settle_s, force = ARGV[6], ARGV[7], tonumber(ARGV[8]), ARGV[9] == '1'
local ref = forge .. ':' .. repository .. '#' .. number
local change = change_key(ref)
local start_at = NOW + settle_s

local seen = P .. ':delivery:' .. forge .. ':' .. delivery
local function remember(id)
  if delivery ~= '' then
    redis.call('SET', seen, id, 'EX', DELIVERY_KEPT_S)
  end
end

-- The same webhook call again. After a failure the operator presses "redeliver" to have another try.
if delivery ~= '' then
  local id = redis.call('GET', seen)
  local job = id and hash(job_key(id)) or {}
  if job.state == 'failed' then
    queue_again(id, job, start_at, 'delivered again after a failure')
  end
  if job.state then
    return {id, job.state, ''}
  end
end

local digest = redis.sha1hex(table.concat({forge, repository, number, head, settings}, '\0'))
-- Not the whole of it: a change of many pushes has two fields for each.
local known = redis.call('HMGET', change, 'key:' .. digest, 'job', 'generation')
local id, current_id, generation_now = known[1], known[2], known[3]
local job = id and hash(job_key(id)) or {}

-- Somebody wants it now: what was meant for the night moves up.
local function hurry()
  if priority == 'interactive' and job.priority == 'batch' and not FINAL[job.state] then
    local due = redis.call('ZSCORE', P .. ':due:batch', id)
    local since = redis.call('ZSCORE', waiting_key(job), id)
    redis.call('ZREM', P .. ':due:batch', id)
    redis.call('ZREM', waiting_key(job), id)
    job.priority = 'interactive'
    redis.call('HSET', job_key(id), 'priority', priority)
    count_open(job, 1)
    set_due(id, job, tonumber(due or NOW))
    set_waiting(id, job, tonumber(since or NOW))
  end
end

-- Make `id` the change's one current job; whatever was current steps back, at once or at its next safe point.
local function make_current()
  local current = current_id
  if current and current ~= id then
    local old = hash(job_key(current))
    if old.state and not FINAL[old.state] then
      redis.call('HSET', job_key(current), 'superseded_by', head)
      if is_leased(old) then
        decide(current, 'job.outdated', 'a newer head was accepted: ' .. head)
      else
        move(current, old, 'superseded', 'a newer head was accepted: ' .. head)
      end
    end
  end
  local generation = redis.call('HINCRBY', change, 'generation', 1)
  redis.call('HSET', change, 'job', id, 'head', head)
  redis.call('HSET', job_key(id), 'generation', generation)
  redis.call('HDEL', job_key(id), 'superseded_by')
end

if job.state then
  local is_current = current_id == id
  if head == '' then
    -- Asked without a head: one that nobody has begun yet will see the same head as this one would.
    if job.state == 'queued' and job.head == '' and job.attempt == '0' then
      hurry()
      remember(id)
      return {id, job.state, ''}
    end
    job = {}
  elseif not FINAL[job.state] then
    if not is_current then
      make_current()
    end
    hurry()
    remember(id)
    return {id, job.state, ''}
  elseif job.state == 'done' then
    if not force then
      if not is_current then
        make_current()
      end
      remember(id)
      return {id, job.state, ''}
    end
    job = {}
  else
    -- Skipped (a draft that is ready now), superseded (the branch was moved back) or failed: its time has come again.
    make_current()
    if force then
      redis.call('HSET', job_key(id), 'forced', '1')
    end
    queue_again(id, job, start_at, 'accepted again, it was ' .. job.state)
    remember(id)
    return {id, job.state, ''}
  end
end

local open = tonumber(redis.call('HGET', P .. ':open', forge .. ':' .. repository) or '0')
if priority == 'interactive' and open >= CROWD then
  priority = 'crowd'
end
local round = redis.call('HINCRBY', change, 'round:' .. digest, 1)
id = string.sub(redis.sha1hex(digest .. ':' .. round), 1, 20)
local made = {
  version = tostring(VERSION), id = id, forge = forge, repository = repository, number = number, head = head,
  priority = priority, settings_hash = settings, stage = 'review', forced = force and '1' or '',
  attempt = '0', deaths = '0', generation = generation_now or '0',
  not_before = stamp(start_at), created_at = stamp(NOW),
}
redis.call('HSET', job_key(id), unpack(flat(made)))
redis.call('HSET', change, 'key:' .. digest, id)
redis.call('EXPIRE', change, CHANGE_KEPT_S)
redis.call('ZADD', change .. ':jobs', made.created_at, id)
redis.call('EXPIRE', change .. ':jobs', CHANGE_KEPT_S)
if head ~= '' then
  make_current()
end
move(id, made, 'queued', 'accepted')
set_due(id, made, math.max(start_at, NOW + WAKE_GRACE_S))
set_waiting(id, made, start_at)
remember(id)
return {id, 'queued', '1', priority}

-- What all throttle scripts share: the account's state, its sliding windows, its fair queue, and `pump`, the one place
-- that admits. A script is this text followed by one `throttle_<verb>.lua`; Redis runs it as one atomic step.
--
-- KEYS, all with one hash tag (budgets span accounts, so all accounts live in one slot of a cluster):
--    1 state      HASH  learned limits with their source, AIMD, pauses, counters, who keeps the time
--    2 slots      HASH  request id -> record of an admitted request; its length is the concurrency in use
--    3 waiters    HASH  request id -> record of a waiting one
--    4 instances  ZSET  instance -> when its lease ends (ms); one heartbeat renews all it holds and waits for
--    5 line       ZSET  by name: class, repository, change, number in line, request id: first come first served
--    6 changes    ZSET  by name: class, repository, start tag, change: those that have someone in line
--    7 repos:i    ZSET  repository -> start tag, interactive class
--    8 repos:b    ZSET  the same for the batch class
--    9 tags       HASH  start-time fair queueing: virtual times, finish tags, start tags
--   10 seen       ZSET  flow -> when it was last served (ms), so that old tags can be forgotten
--   11 minute     LIST  starts (ms) of the buckets of the last minute that count something, oldest first
--   12 minute:n   HASH  "<start>:r" requests and "<start>:t" tokens of a bucket; "r" and "t" their sums
--   13 day        LIST  as `minute`, for the last 24 hours
--   14 day:n      HASH  as `minute:n`
-- Made here with the same tag: members:<instance> SET of its request ids, inbox:<instance> LIST of what it is told,
-- parked:<job> LIST of its waiters while its budget is reserved, and money: month:<yyyy-mm>, job:<id>.
-- ARGV: 1 settings, 2 the verb's arguments, both JSON; times in ms, money in micro-dollars.
local STATE, SLOTS, WAITERS, INSTANCES, LINE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local CHANGES, TAGS, SEEN = KEYS[6], KEYS[9], KEYS[10]
local REPOS = {i = KEYS[7], b = KEYS[8]}
local MINUTE = {list = KEYS[11], counts = KEYS[12]}
local DAY = {list = KEYS[13], counts = KEYS[14]}
local cfg = cjson.decode(ARGV[1])
local arg = cjson.decode(ARGV[2])
local call = redis.call

-- Redis' own clock: the fleet's machines need not agree on the time.
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- Redis seeds math.random alike for each run, so the caller brings the chance.
math.randomseed(cfg.seed)

-- `state` in memory, written through.
local state = {}
do
  local flat = call('HGETALL', STATE)
  for at = 1, #flat, 2 do state[flat[at]] = tonumber(flat[at + 1]) or flat[at + 1] end
end
local function put(field, value)
  state[field] = value
  if value == nil then
    call('HDEL', STATE, field)
  else
    -- %.17g keeps milliseconds whole: Lua's own form of a large number would round them.
    call('HSET', STATE, field, type(value) == 'number' and string.format('%.17g', value) or value)
  end
end

-- ---------------------------------------------------------------------------------------------------------- limits
-- A limit that a refusal told is believed for a day; then the configured one, or none, is tried again.
local function learned(kind)
  local at = state[kind .. ':at']
  if at and at + cfg.learned > now then return state[kind] end
end
-- The lower one of what was configured and what was told.
local function limit(kind)
  local told, known = learned(kind), cfg[kind]
  if told and known then return math.min(told, known) end
  return told or known
end
local function concurrency()
  local known = limit('concurrency')
  -- `aimd` exists where nothing is known, and where overload has brought a known limit down.
  local adapted = state.aimd or (not known and cfg.first) or nil
  if known and adapted then return math.max(1, math.floor(math.min(known, adapted))) end
  return math.max(1, math.floor(known or adapted))
end

-- --------------------------------------------------------------------------------------------------------- windows
-- A sliding window in buckets. A bucket leaves when its whole width, the window and the guard have passed: so no 60 s
-- of the server's clock see more than the cap, though requests reach it up to `guard` after they were admitted here.
-- At most window / width buckets exist, however many requests they count.
MINUTE.span, MINUTE.width = cfg.minute + cfg.guard, cfg.width
DAY.span, DAY.width = cfg.day + cfg.guard, cfg.day_width
local function slide(window)
  while true do
    local start = call('LINDEX', window.list, 0)
    if not start then
      call('DEL', window.counts)
      break
    end
    if start + window.width + window.span > now then break end
    local n = call('HMGET', window.counts, start .. ':r', start .. ':t')
    call('HINCRBY', window.counts, 'r', -(n[1] or 0))
    call('HINCRBY', window.counts, 't', -(n[2] or 0))
    call('HDEL', window.counts, start .. ':r', start .. ':t')
    call('LPOP', window.list)
  end
  local sums = call('HMGET', window.counts, 'r', 't')
  window.r, window.t = tonumber(sums[1] or 0), tonumber(sums[2] or 0)
end
-- Count into the bucket of now; the answer is the bucket's start.
local function count(window, requests, tokens)
  local start = string.format('%d', now - now % window.width)
  local was = call('HINCRBY', window.counts, start .. ':r', requests)
  call('HINCRBY', window.counts, start .. ':t', tokens)
  if call('LINDEX', window.list, -1) ~= start then call('RPUSH', window.list, start) end
  window.r = call('HINCRBY', window.counts, 'r', requests)
  window.t = call('HINCRBY', window.counts, 't', tokens)
  return start
end
-- Correct what the bucket `start` counts; a bucket that has left is not brought back.
local function correct(window, start, requests, tokens)
  if not start or call('HEXISTS', window.counts, start .. ':r') == 0 then return end
  if requests ~= 0 then
    call('HINCRBY', window.counts, start .. ':r', requests)
    window.r = call('HINCRBY', window.counts, 'r', requests)
  end
  call('HINCRBY', window.counts, start .. ':t', tokens)
  window.t = call('HINCRBY', window.counts, 't', tokens)
end
-- When enough buckets will have left to make room for `requests` and `tokens`, and the tokens to spare then.
local function turn(window, requests, tokens)
  local from = 0
  while true do
    local starts = call('LRANGE', window.list, from, from + 31)
    if #starts == 0 then return now, 0 end
    local fields = {}
    for _, start in ipairs(starts) do
      fields[#fields + 1] = start .. ':r'
      fields[#fields + 1] = start .. ':t'
    end
    local n = call('HMGET', window.counts, unpack(fields))
    for at, start in ipairs(starts) do
      requests = requests - (n[2 * at - 1] or 0)
      tokens = tokens - (n[2 * at] or 0)
      if requests <= 0 and tokens <= 0 then return start + window.width + window.span, -tokens end
    end
    from = from + 32
  end
end

-- ----------------------------------------------------------------------------------------------------------- money
-- "2026-11": the month of Redis' clock, UTC (days to civil date, http://howardhinnant.github.io/date_algorithms.html).
local function month()
  local days = math.floor(now / 86400000) + 719468
  local era = math.floor(days / 146097)
  local doe = days - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local m = mp < 10 and mp + 3 or mp - 9
  return string.format('%04d-%02d', yoe + era * 400 + (m <= 2 and 1 or 0), m)
end
local function month_key(name) return cfg.money .. 'month:' .. name end
local function job_key(job) return cfg.money .. 'job:' .. job end
-- Money spent and money reserved by requests that are under way.
local function booked(key)
  local n = call('HMGET', key, 'spent', 'reserved')
  return tonumber(n[1] or 0), tonumber(n[2] or 0)
end
-- "ok", "wait" while only reservations stand in the way, or "stop". What is admitted last may pass the stop by its own
-- price: a stop that had to hold the worst case would end reviews that cost a tenth of it.
local function within(key, stop)
  local spent, reserved = booked(key)
  if spent >= stop then return 'stop' end
  return spent + reserved < stop and 'ok' or 'wait'
end
local function book(slot, spent, reserved, usage)
  local keys = {month_key(slot.month)}
  if slot.job ~= '' then keys[2] = job_key(slot.job) end
  for _, key in ipairs(keys) do
    if reserved ~= 0 then call('HINCRBY', key, 'reserved', reserved) end
    if spent ~= 0 then call('HINCRBY', key, 'spent', spent) end
    for field, n in pairs(usage or {}) do call('HINCRBY', key, field, n) end
  end
  if spent ~= 0 then call('HINCRBY', keys[1], 'repository:' .. slot.repository, spent) end
  call('PEXPIRE', keys[1], cfg.month_kept)
  if keys[2] then call('PEXPIRE', keys[2], cfg.job_kept) end
end

-- ------------------------------------------------------------------------------------------------------ fair queue
-- Start-time fair queueing in two levels (Goyal, Vin, Cheng 1996): repositories within a class, changes within a
-- repository. Whoever comes starts at the virtual time of now, behind nobody's backlog; whoever was served moves on by
-- what it cost. Repositories and changes are named by hashes of 16 hex digits, so names need no separators.
local function first(key, from)
  return call('ZRANGEBYLEX', key, '[' .. from, '(' .. from .. '\255', 'LIMIT', 0, 1)[1]
end
local function tag(field) return tonumber(call('HGET', TAGS, field) or 0) end
local function place(class, repo, change, start)
  call('HSET', TAGS, 's' .. class .. repo .. change, string.format('%.17g', start))
  call('ZADD', CHANGES, 0, class .. repo .. string.format('%016d', start) .. change)
end
local function in_line(w, id) return w.class .. w.repo .. w.change .. string.format('%012d', w.number) .. id end
local function join(w, id)
  if not first(LINE, w.class .. w.repo .. w.change) then
    place(w.class, w.repo, w.change, math.max(tag('v' .. w.class .. w.repo), tag('f' .. w.class .. w.repo .. w.change)))
  end
  if not call('ZSCORE', REPOS[w.class], w.repo) then
    call('ZADD', REPOS[w.class], math.max(tag('v' .. w.class), tag('f' .. w.class .. w.repo)), w.repo)
  end
  call('ZADD', LINE, 0, in_line(w, id))
  call('HSET', WAITERS, id, cjson.encode(w))
end
-- Take a waiter out of line; `weight` is the service it got, 0 for one that goes away unserved.
local function quit(w, id, weight)
  if call('ZREM', LINE, in_line(w, id)) == 0 then return end
  call('HDEL', WAITERS, id)
  local flow, repo = w.class .. w.repo .. w.change, w.class .. w.repo
  local start = tag('s' .. flow)
  call('ZREM', CHANGES, repo .. string.format('%016d', start) .. w.change)
  if weight > 0 then
    call('HSET', TAGS, 'v' .. repo, string.format('%.17g', start), 'f' .. flow, string.format('%.17g', start + weight))
    call('ZADD', SEEN, now, flow, now, repo)
  end
  if first(LINE, flow) then place(w.class, w.repo, w.change, start + weight) else call('HDEL', TAGS, 's' .. flow) end
  local begun = tonumber(call('ZSCORE', REPOS[w.class], w.repo) or 0)
  if weight > 0 then
    call('HSET', TAGS, 'v' .. w.class, string.format('%.17g', begun), 'f' .. repo, string.format('%.17g', begun + weight))
  end
  if first(LINE, repo) then
    if weight > 0 then call('ZADD', REPOS[w.class], begun + weight, w.repo) end
  else
    call('ZREM', REPOS[w.class], w.repo)
  end
end
-- Forget flows that were not served for a while and have nobody in line: memory stays bounded by what is active.
local function forget()
  for _, flow in ipairs(call('ZRANGEBYSCORE', SEEN, '-inf', now - cfg.forget, 'LIMIT', 0, 4)) do
    if first(LINE, flow) then
      call('ZADD', SEEN, now, flow)
    else
      call('ZREM', SEEN, flow)
      call('HDEL', TAGS, 'f' .. flow, 'v' .. flow, 's' .. flow)
    end
  end
end

-- --------------------------------------------------------------------------------------------------------- telling
local mine = {}
local unread = {}
-- How many messages an instance had not read when this script began. A living one reads between two scripts; where
-- several lie it is dead, or stands still, and gets no further slot until it reads: or the waiters of a killed process
-- would take every slot that comes free until its lease ends.
local function is_deaf(instance)
  if not unread[instance] then unread[instance] = call('LLEN', cfg.prefix .. 'inbox:' .. instance) end
  return unread[instance] >= cfg.deaf
end
-- Tell an instance; the caller's own request is answered by the script's reply instead.
local function tell(instance, message)
  if message.id and message.id == arg.id then
    mine = message
    return
  end
  is_deaf(instance)
  local inbox = cfg.prefix .. 'inbox:' .. instance
  call('RPUSH', inbox, cjson.encode(message))
  call('PEXPIRE', inbox, 4 * cfg.lease)
end
-- Pass over a deaf one. When it reads again it reads that it should look again, too.
local function passed_over(instance)
  if instance == arg.instance or not is_deaf(instance) then return false end
  if unread[instance] < 2 * cfg.deaf then
    tell(instance, {kind = 'due', wait = 0})
    unread[instance] = 2 * cfg.deaf
  end
  return true
end

-- ------------------------------------------------------------------------------------------------------- selection
-- The first waiter of one class, in fair order, that `accepts(id, waiter)`; nil when none of the first 128 flows has one.
local function front(class, accepts)
  local tries, from, to = 0, 0, 0
  while true do
    local repos = call('ZRANGE', REPOS[class], from, to)
    for _, repo in ipairs(repos) do
      local name = class .. repo
      for _, entry in ipairs(call('ZRANGEBYLEX', CHANGES, '[' .. name, '(' .. name .. '\255', 'LIMIT', 0, 8)) do
        local id = string.sub(first(LINE, name .. string.sub(entry, 34, 49)), 46)
        local w = cjson.decode(call('HGET', WAITERS, id))
        if accepts(id, w) then return id, w end
        tries = tries + 1
        if tries >= 128 then return end
      end
    end
    if #repos <= to - from then return end
    from, to = to + 1, to + 63
  end
end
local function hears(_, w) return not passed_over(w.instance) end
-- Interactive first; while batch waits too, it gets every `batch_share`th admission.
local function next_waiter()
  local order = {'i', 'b'}
  if (state.streak or 0) >= cfg.batch_share - 1 then order = {'b', 'i'} end
  for _, class in ipairs(order) do
    local id, w = front(class, hears)
    if id then return id, w end
  end
end
-- ------------------------------------------------------------------------------------------------------- admission
local function leave_instance(instance, id)
  local members = cfg.prefix .. 'members:' .. instance
  call('SREM', members, id)
  if call('SCARD', members) == 0 then call('ZREM', INSTANCES, instance) end
end
-- Another request of `job` that waits beside the line for its money may try now. One at a time: whatever becomes
-- of it lets the next one try.
local function unpark(job)
  if job == '' then return end
  while true do
    local id = call('LPOP', cfg.prefix .. 'parked:' .. job)
    if not id then return end
    local record = call('HGET', WAITERS, id)
    if record then
      join(cjson.decode(record), id)
      return
    end
  end
end
local function turn_away(w, id, message)
  quit(w, id, 0)
  leave_instance(w.instance, id)
  message.id = id
  tell(w.instance, message)
  unpark(w.job)
end
local function admit(w, id)
  if w.class == 'b' then put('streak', nil) elseif call('ZCARD', REPOS.b) > 0 then put('streak', (state.streak or 0) + 1) end
  quit(w, id, w.tokens + cfg.request_weight)
  local slot = {
    instance = w.instance, input = w.input, tokens = w.tokens, usd = w.usd, month = month(), job = w.job,
    repository = w.repository, at = now, minute = count(MINUTE, 1, w.tokens), day = count(DAY, 1, w.tokens),
  }
  call('HSET', SLOTS, id, cjson.encode(slot))
  book(slot, 0, w.usd)
  if state.ramp_until and state.ramp_until > now then
    put('next_grant', now + math.floor(2 * math.random() * state.ramp_ms / concurrency()))
  end
  tell(w.instance, {kind = 'admitted', id = id, at = now})
  unpark(w.job)
end
-- Give a slot back. `spent` is what it cost; nil when nobody can know, then its worst case counts.
local function give_back(id, spent, usage)
  local record = call('HGET', SLOTS, id)
  if not record then return end
  local slot = cjson.decode(record)
  call('HDEL', SLOTS, id)
  leave_instance(slot.instance, id)
  book(slot, spent or slot.usd, -slot.usd, usage)
  unpark(slot.job)
  return slot
end
-- Take from instances whose lease has ended what they held; 200 a time, so that no call takes long.
local function reap()
  for _, instance in ipairs(call('ZRANGEBYSCORE', INSTANCES, '-inf', now, 'LIMIT', 0, 2)) do
    local ids = call('SPOP', cfg.prefix .. 'members:' .. instance, 200)
    for _, id in ipairs(ids) do
      local record = call('HGET', WAITERS, id)
      if record then
        local w = cjson.decode(record)
        quit(w, id, 0)
        call('HDEL', WAITERS, id)
        unpark(w.job)
      end
      give_back(id, nil, {lost = 1})
    end
    if call('SCARD', cfg.prefix .. 'members:' .. instance) == 0 then
      call('ZREM', INSTANCES, instance)
      call('DEL', cfg.prefix .. 'inbox:' .. instance)
    end
  end
end
-- What stands in the way of a waiter for good: it is told so and leaves the line. True when it did.
local function dismissed(w, id)
  local tpm, tpd = limit('tpm'), limit('tpd')
  if state.quota_until and state.quota_until > now then
    turn_away(w, id, {kind = 'quota', till = state.quota_until})
  elseif tpm and w.tokens > tpm then
    turn_away(w, id, {kind = 'too_long', limit = tpm})
  elseif tpd and w.tokens > tpd then
    turn_away(w, id, {kind = 'too_long', limit = tpd})
  elseif tpd and DAY.t + w.tokens > tpd then
    turn_away(w, id, {kind = 'day', till = (turn(DAY, 0, DAY.t + w.tokens - tpd)), limit = tpd})
  elseif cfg.month_stop and within(month_key(month()), cfg.month_stop) == 'stop' then
    turn_away(w, id, {kind = 'month'})
  elseif cfg.review_stop and w.job ~= '' then
    local verdict = within(job_key(w.job), cfg.review_stop)
    if verdict == 'ok' then return false end
    if verdict == 'stop' then
      turn_away(w, id, {kind = 'review'})
    else
      -- Its own requests hold its money: it waits beside the line, in nobody's way.
      quit(w, id, 0)
      call('HSET', WAITERS, id, cjson.encode(w))
      call('RPUSH', cfg.prefix .. 'parked:' .. w.job, id)
      call('PEXPIRE', cfg.prefix .. 'parked:' .. w.job, cfg.job_kept)
    end
  else
    return false
  end
  return true
end
-- The head's tokens do not fit yet. Others may use what lies idle meanwhile: freely what will be to spare when the
-- head's turn comes, and beyond that no more in all than the head's own size, so it is delayed once and never starved.
local function slip_by(head_id, head_w, spare, tpm)
  local room, allowed = tpm - MINUTE.t, head_w.tokens - (head_w.passed or 0)
  local function fits(id, w)
    return id ~= head_id and w.tokens <= room and (w.tokens <= spare or w.tokens <= allowed) and hears(id, w)
  end
  for _, class in ipairs({'i', 'b'}) do
    local id, w = front(class, fits)
    if id then
      if not dismissed(w, id) then
        if w.tokens > spare then
          head_w.passed = (head_w.passed or 0) + w.tokens
          call('HSET', WAITERS, head_id, cjson.encode(head_w))
        end
        admit(w, id)
      end
      return true
    end
  end
  return false
end
-- Admit whoever may go now, in order; then see to it that exactly one instance looks again when time alone will help.
local function pump()
  reap()
  forget()
  slide(MINUTE)
  slide(DAY)
  local due, id, w
  for _ = 1, cfg.batch do
    id, w = next_waiter()
    if not id then break end
    due = nil
    if not dismissed(w, id) then
      local rpm, tpm = limit('rpm'), limit('tpm')
      if state.pause_until and state.pause_until > now then
        due = state.pause_until
        break
      end
      if state.ramp_until and state.ramp_until > now and (state.next_grant or 0) > now then
        due = state.next_grant
        break
      end
      if call('HLEN', SLOTS) >= concurrency() then
        due = 0
        break
      end
      if cfg.month_stop and within(month_key(month()), cfg.month_stop) == 'wait' then
        due = 0
        break
      end
      -- A hundred requests that may go at once do not arrive at once, and what arrives late hurts the window. Spread
      -- out they keep their distance in every minute that follows, so nothing is lost but some seconds at the start.
      local gap = 0
      if rpm or tpm then gap = math.min(cfg.gap, cfg.minute / 4 / (rpm or 1)) end
      -- Further ahead than it can have been put: Redis' clock was set back, and nobody waits for it to catch up.
      if (state.pace or 0) - now > 12 * cfg.gap then put('pace', nil) end
      if gap > 0 and (state.pace or 0) - now > 10 * gap then
        due = state.pace - 10 * gap
        break
      end
      if rpm and MINUTE.r + 1 > rpm then
        due = turn(MINUTE, MINUTE.r + 1 - rpm, tpm and MINUTE.t + w.tokens - tpm or 0)
        break
      end
      if tpm and MINUTE.t + w.tokens > tpm then
        local spare
        due, spare = turn(MINUTE, 0, MINUTE.t + w.tokens - tpm)
        if not slip_by(id, w, spare, tpm) then break end
      else
        admit(w, id)
      end
      if gap > 0 then put('pace', math.max(state.pace or 0, now) + gap) end
    end
    id = nil
  end
  if not id then id, w = next_waiter() end
  if not id then return end
  -- due: nil after a full round (look again at once), 0 when only a release helps, which wakes by itself.
  due = due or now
  -- A dead instance's slots come back when its lease ends.
  local lease = call('ZRANGE', INSTANCES, 0, 0, 'WITHSCORES')
  if lease[2] and (due == 0 or tonumber(lease[2]) < due) then due = tonumber(lease[2]) end
  if due == 0 then return end
  if state.keeper ~= w.instance or not state.due or state.due <= now or due < state.due - 2 then
    put('keeper', w.instance)
    put('due', due)
    tell(w.instance, {kind = 'due', wait = math.max(0, due - now)})
  end
end

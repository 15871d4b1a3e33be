-- The heartbeat of one instance: its lease goes on, and with it all it holds and waits for.
-- Arguments: instance, waiting (ids it believes to be in line), held (what it knows of its slots).
-- Replies {now, slots = {id -> at} of those it holds and did not name, unknown = [id]}: what a lost message failed to say.
call('ZADD', INSTANCES, now + cfg.lease, arg.instance)
local members = cfg.prefix .. 'members:' .. arg.instance
local held, slots, unknown, jobs = {}, {}, {}, {}
for _, slot in ipairs(arg.held) do held[slot.id] = slot end
for _, id in ipairs(call('HKEYS', SLOTS)) do
  -- A request's id begins with its instance.
  if string.sub(id, 1, #arg.instance) == arg.instance and not held[id] then
    slots[id] = cjson.decode(call('HGET', SLOTS, id)).at
  end
end
for _, id in ipairs(arg.waiting) do
  local waiter = call('HGET', WAITERS, id)
  if waiter then
    jobs[cjson.decode(waiter).job] = true
  elseif not slots[id] then
    unknown[#unknown + 1] = id
  end
end
-- What holds a job's money may be a request to another account, whose end nobody hears of here: one may try again.
for job in pairs(jobs) do unpark(job) end
for id, slot in pairs(held) do
  -- It was taken for dead (stopped too long, or Redis lost its memory), yet its requests are still open at the server:
  -- they count again until they are done, though nobody else's place is taken for it. Their money was booked.
  if call('HEXISTS', SLOTS, id) == 0 then
    call('SADD', members, id)
    call('HSET', SLOTS, id, cjson.encode({
      instance = arg.instance, input = slot.input, tokens = slot.tokens, usd = 0, month = month(), job = slot.job,
      repository = slot.repository, at = now,
    }))
  end
end
if #arg.waiting == 0 and call('SCARD', members) == 0 then call('ZREM', INSTANCES, arg.instance) end
pump()
return cjson.encode({now = now, slots = slots, unknown = unknown})

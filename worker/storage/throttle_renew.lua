-- The heartbeat of one instance: its lease goes on, and with it all it holds and waits for.
-- Arguments: instance, waiting (ids it believes to be in line), held (id -> what it knows of a slot).
-- Replies {now, admitted = {id -> at}, unknown = [id]}: what a lost message failed to say.
local was_alive = call('ZSCORE', INSTANCES, arg.instance)
call('ZADD', INSTANCES, now + cfg.lease, arg.instance)
local members = cfg.prefix .. 'members:' .. arg.instance
local admitted, unknown = {}, {}
for _, id in ipairs(arg.waiting) do
  local record = call('HGET', SLOTS, id)
  if record then
    admitted[id] = cjson.decode(record).at
  elseif call('HEXISTS', WAITERS, id) == 0 then
    unknown[#unknown + 1] = id
  end
end
if not was_alive then
  -- It was taken for dead (stopped too long, or Redis lost its memory), yet its requests are still open at the server:
  -- they count again until they are done, though nobody else's place is taken for it. Their money was booked.
  for _, slot in ipairs(arg.held) do
    if call('HEXISTS', SLOTS, slot.id) == 0 then
      call('SADD', members, slot.id)
      call('HSET', SLOTS, slot.id, cjson.encode({
        instance = arg.instance, input = slot.input, tokens = slot.tokens, usd = 0, month = month(), job = slot.job,
        repository = slot.repository, at = now,
      }))
    end
  end
end
if #arg.waiting == 0 and call('SCARD', members) == 0 then call('ZREM', INSTANCES, arg.instance) end
pump()
return cjson.encode({now = now, admitted = admitted, unknown = unknown})

-- Give a slot back, or leave the line; then admit who is next. Safe to run twice.
-- Arguments: id; `unsent` when the request never went out; `spent` (micro-dollars), `input` (tokens as billed) and
-- `usage` (counters for the books) when it was answered.
local waiting = call('HGET', WAITERS, arg.id)
if waiting then
  local w = cjson.decode(waiting)
  quit(w, arg.id, 0)
  -- One that is parked stands in no line, but is known all the same.
  call('HDEL', WAITERS, arg.id)
  leave_instance(w.instance, arg.id)
  unpark(w.job)
end
-- Read before the slot goes: growth needs to know whether the limit was in use.
local full = call('HLEN', SLOTS) >= concurrency()
-- An error is not billed, so without usage it cost nothing.
local slot = give_back(arg.id, arg.spent or 0, arg.usage)
if slot then
  if arg.unsent then
    correct(MINUTE, slot.minute, -1, -slot.tokens)
    correct(DAY, slot.day, -1, -slot.tokens)
  elseif arg.input then
    -- The server counted the true input plus the whole cap when the request arrived, however short the answer was: so
    -- the input is corrected and the cap is not refunded.
    correct(MINUTE, slot.minute, 0, arg.input - slot.input)
    correct(DAY, slot.day, 0, arg.input - slot.input)
  end
  if arg.usage then
    if slot.at >= (state.refused_at or 0) then put('refusals', nil) end
    local known = limit('concurrency')
    -- Additive increase: one more slot for each limit's worth of answers, and only while the limit is what holds.
    if full and (state.aimd or not known) then
      local grown = (state.aimd or cfg.first) + 1 / concurrency()
      if known and grown >= known then put('aimd', nil) else put('aimd', grown) end
    end
  end
end
pump()
return cjson.encode({now = now})

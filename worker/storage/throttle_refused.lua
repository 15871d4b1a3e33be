-- The server refused somebody: it concerns the whole fleet.
-- Arguments: kind "rate", "overloaded" or "quota"; `limit` and `value` when the text told them; `retry` (ms) the other
-- side's wish; `floor` (ms) what is known to be too short; `till` (ms) when a quota's window turns.
if arg.kind == 'quota' then
  put('quota_until', math.max(arg.till, state.quota_until or 0))
else
  if arg.limit and arg.value then
    put(arg.limit, arg.value)
    put(arg.limit .. ':at', now)
  end
  -- Multiplicative decrease, where no number tells better; once a second, since one overload refuses many at once.
  if not arg.value and (arg.kind == 'overloaded' or not arg.limit or arg.limit == 'concurrency') then
    if now - (state.lowered or 0) >= 1000 then
      put('lowered', now)
      put('aimd', math.max(1, concurrency() * 0.85))
    end
  end
  -- The cool-down doubles with each refusal that comes after a pause, not with each of the many that began it.
  if (state.pause_until or 0) <= now then put('refusals', math.min(16, (state.refusals or 0) + 1)) end
  local cool = math.min(cfg.cool_max, arg.floor * 2 ^ ((state.refusals or 1) - 1))
  put('refused_at', now)
  put('pause_until', math.max(state.pause_until or 0, now + math.max(arg.retry or 0, cool)))
  -- Full jitter on release: admissions are spread at random over one more cool-down.
  put('ramp_ms', cool)
  put('ramp_until', state.pause_until + cool)
  put('next_grant', state.pause_until + math.floor(2 * math.random() * cool / concurrency()))
end
pump()
return cjson.encode({now = now})

-- How the account stands, for `kimi-review check`, the metrics and the status page. Admits nobody.
-- Replies {now, concurrency, in_use, waiting, minute_requests, minute_tokens, day_tokens, limits = {kind -> {value,
-- source}}, pause_until, quota_until, aimd}.
slide(MINUTE)
slide(DAY)
local limits = {}
for _, kind in ipairs({'concurrency', 'rpm', 'tpm', 'tpd'}) do
  local told = learned(kind)
  if told and told == limit(kind) and told ~= cfg[kind] then
    limits[kind] = {value = told, source = 'told by a refusal', at = state[kind .. ':at']}
  elseif cfg[kind] then
    limits[kind] = {value = cfg[kind], source = cfg.sources[kind]}
  end
end
return cjson.encode({
  now = now, concurrency = concurrency(), in_use = call('HLEN', SLOTS), waiting = call('HLEN', WAITERS),
  minute_requests = MINUTE.r, minute_tokens = MINUTE.t, day_tokens = DAY.t, limits = limits,
  pause_until = state.pause_until, quota_until = state.quota_until, aimd = state.aimd,
})

-- Forget in the indexes what has expired by itself.
for state in pairs(FINAL) do
  redis.call('ZREMRANGEBYSCORE', P .. ':state:' .. state, '-inf', stamp(NOW - RECORD_KEPT_S - DAY_S))
end

-- Dead letters whose change was not told yet; each is given out again only after some seconds. ARGV: how many, seconds
local ids = redis.call('ZRANGEBYSCORE', P .. ':notes', '-inf', stamp(NOW), 'LIMIT', 0, tonumber(ARGV[1]))
for _, id in ipairs(ids) do
  if redis.call('EXISTS', job_key(id)) == 1 then
    redis.call('ZADD', P .. ':notes', stamp(NOW + tonumber(ARGV[2])), id)
  else
    redis.call('ZREM', P .. ':notes', id)
  end
end
return ids

-- Stand in line, and go at once when it is one's turn. Safe to run twice with one id: a lost reply is asked for again.
-- Arguments: id, instance, class ("i" or "b"), repo and change (hashes), input, tokens (input plus cap), usd (the most
-- it can cost), job, repository (for the books).
-- Replies {kind, now, …}: "admitted" with `at`, "waiting", or why not: "quota" and "day" with `till`, "too_long" with
-- `limit`, "month", "review".
call('ZADD', INSTANCES, now + cfg.lease, arg.instance)
local held = call('HGET', SLOTS, arg.id)
if held then
  mine = {kind = 'admitted', at = cjson.decode(held).at}
else
  if call('HEXISTS', WAITERS, arg.id) == 0 then
    call('SADD', cfg.prefix .. 'members:' .. arg.instance, arg.id)
    arg.number = call('HINCRBY', STATE, 'number', 1)
    join(arg, arg.id)
  end
  pump()
end
mine.kind = mine.kind or 'waiting'
mine.now = now
return cjson.encode(mine)

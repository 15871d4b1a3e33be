-- Count a request as of now that was admitted a while ago and only goes out now (its process had stopped, or Redis was
-- slow). The windows' sums stay as they are: the request leaves them later, as it will at the server.
-- Argument: id. Replies {now, at}; `at` is missing when the slot is gone.
local record = call('HGET', SLOTS, arg.id)
if not record then return cjson.encode({now = now}) end
local slot = cjson.decode(record)
for name, window in pairs({minute = MINUTE, day = DAY}) do
  if slot[name] then
    correct(window, slot[name], -1, -slot.tokens)
    slot[name] = count(window, 1, slot.tokens)
  end
end
slot.at = now
call('HSET', SLOTS, arg.id, cjson.encode(slot))
return cjson.encode({now = now, at = now})

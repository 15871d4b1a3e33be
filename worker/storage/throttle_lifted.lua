-- The provider answered somebody while a used-up quota or balance held everybody else back: that is over.
-- Argument: `till` (ms) the pause that was in force then; a later one was told meanwhile, and stays.
if state.quota_until and state.quota_until <= arg.till then put('quota_until', nil) end
pump()
return cjson.encode({now = now})

-- Look again, because the time has come that `pump` told this instance to wait for.
-- Argument: instance.
if state.keeper == arg.instance then put('due', nil) end
pump()
return cjson.encode({now = now})

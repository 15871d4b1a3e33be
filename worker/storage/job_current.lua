-- Whether the lease stands and no newer head was accepted. ARGV: id, token
local job = owned(ARGV[1], ARGV[2])
if not job or not is_leased(job) then
  return ''
end
local newest = redis.call('HGET', change_key(ref_of(job)), 'generation') or '0'
return tonumber(job.generation) >= tonumber(newest) and '1' or ''

-- The heartbeat. ARGV: id, token, lease seconds. Answers '1', or '' when another one owns the job.
local id, lease_s = ARGV[1], tonumber(ARGV[3])
local job = owned(id, ARGV[2])
if not job then
  return ''
end
set_lease(id, job, NOW + lease_s)
return '1'

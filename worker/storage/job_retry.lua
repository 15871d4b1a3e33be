-- Queue a dead letter again. ARGV: id. Answers '1', or '' when there is no such dead letter.
local id = ARGV[1]
local job = hash(job_key(id))
if job.state ~= 'failed' then
  return ''
end
-- Unless a newer head came meanwhile, which the claim will see.
queue_again(id, job, NOW, 'retried by hand')
return '1'

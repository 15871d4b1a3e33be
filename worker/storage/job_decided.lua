-- Append to the log of decisions; for a job that is gone nothing is left behind. ARGV: id, event, detail
if redis.call('EXISTS', job_key(ARGV[1])) == 1 then
  decide(ARGV[1], ARGV[2], ARGV[3])
end

-- How long the job that waits longest does, for each stage and priority. ARGV: stage, priority, stage, priority, …
-- Answers seconds, one for each pair, 0 where none waits: one look at the head of each index.
local STALE_AT_ONCE = 100
local answer = {}
for i = 1, #ARGV, 2 do
  local waiting = waiting_key({stage = ARGV[i], priority = ARGV[i + 1]})
  local waited_s = 0
  -- A program of before this index leaves behind what it works on or has ended: such a line is no wait, and goes.
  for _ = 1, STALE_AT_ONCE do
    local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
    if not first[1] or tonumber(first[2]) >= NOW then
      break
    end
    local job = hash(job_key(first[1]))
    if job.state and not FINAL[job.state] and not is_leased(job) then
      waited_s = NOW - tonumber(first[2])
      break
    end
    redis.call('ZREM', waiting, first[1])
  end
  answer[#answer + 1] = stamp(waited_s)
end
return answer

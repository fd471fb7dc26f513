-- ARGV: now, request, completion_tokens_max, outcome. Answers the standing.
local id, outcome = ARGV[2], ARGV[4]
local record = read_record(id)
if record then
  if record.s ~= 'running' then
    settle(id, record, outcome)
  elseif outcome == 'cancelled' then
    call('HSETNX', base .. 'r:' .. id, 'cm', ARGV[3])
    call('SADD', base .. 'wc:' .. record.w, id)
    ring(base .. 'wb:' .. record.w)
  else
    settle_over_worker(id, record, outcome)
  end
end
return standing(id)

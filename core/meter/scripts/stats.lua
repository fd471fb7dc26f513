-- ARGV: now, tier, ... Answers open, usage backlog, dead letters, then queued, running, workers, oldest_wait_ms by tier.
local out = {call('ZCARD', base .. 'open'), call('XLEN', base .. 'usage'), call('XLEN', base .. 'dead')}
for i = 2, #ARGV do
  local tier = ARGV[i]
  local oldest = call('ZRANGE', base .. 'age:' .. tier, 0, 0, 'WITHSCORES')[2]
  out[#out + 1] = call('ZCARD', base .. 'age:' .. tier)
  out[#out + 1] = num(call('HGET', base .. 't:' .. tier, 'running'))
  out[#out + 1] = call('HLEN', base .. 'slots:' .. tier)
  out[#out + 1] = oldest and math.max(0, now - tonumber(oldest)) or 0
end
return out

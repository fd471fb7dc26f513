-- ARGV: now, tier, ... Answers dead letters, then for each tier drained, queued, running, oldest_wait_ms,
-- expected_wait_ms and a flat list: worker, slots, held, lease_left_ms, drained, ...
local out = {call('XLEN', base .. 'dead')}
for i = 2, #ARGV do
  local tier = ARGV[i]
  local workers = {}
  local slots = call('HGETALL', base .. 'slots:' .. tier)
  for at = 1, #slots, 2 do
    local worker = slots[at]
    local until_ms = tonumber(call('ZSCORE', base .. 'leases', worker)) or now
    for _, value in ipairs({worker, tonumber(slots[at + 1]), call('SCARD', base .. 'wj:' .. worker),
        math.max(0, until_ms - now), call('HEXISTS', base .. 'drained', 'w:' .. worker)}) do
      workers[#workers + 1] = value
    end
  end
  local oldest = call('ZRANGE', base .. 'age:' .. tier, 0, 0, 'WITHSCORES')[2]
  out[#out + 1] = {
    call('HEXISTS', base .. 'drained', 't:' .. tier), call('ZCARD', base .. 'age:' .. tier),
    num(call('HGET', base .. 't:' .. tier, 'running')), oldest and math.max(0, now - tonumber(oldest)) or 0,
    expected_wait_ms(tier), workers}
end
return out

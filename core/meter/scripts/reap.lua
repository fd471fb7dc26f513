-- Housekeeping. ARGV: now, lease_ms. Answers id, submitter, attempt for every attempt that is lost.
local lease_ms = tonumber(ARGV[2])
local SETTLED_MAX = 200

local last = call('GET', base .. 'reaped')
call('SET', base .. 'reaped', int(now))
if not last or now - tonumber(last) > lease_ms / 2 then
  -- Nobody looked for long: Redis or everybody was away, so no silence proves a loss.
  for _, worker in ipairs(call('ZRANGE', base .. 'leases', 0, -1)) do
    call('ZADD', base .. 'leases', int(now + lease_ms), worker)
  end
  return {}
end

local losses = {}
for _, worker in ipairs(call('ZRANGEBYSCORE', base .. 'leases', '-inf', '(' .. int(now))) do
  for _, value in ipairs(lose_worker(worker, 1)) do
    losses[#losses + 1] = value
  end
end

local function settle_all(ids, outcome)
  for _, id in ipairs(ids) do
    local record = read_record(id)
    if record then
      if record.s == 'lost' and record.k >= STRIKES_MAX then
        bury(id, record)
      end
      settle_over_worker(id, record, outcome)
    end
  end
end

settle_all(call('ZRANGEBYSCORE', base .. 'lost', '-inf', '(' .. int(now), 'LIMIT', 0, SETTLED_MAX), 'failed')
settle_all(call('ZRANGEBYSCORE', base .. 'open', '-inf', '(' .. int(now - DECIDE_MS), 'LIMIT', 0, SETTLED_MAX), 'timeout')
return losses

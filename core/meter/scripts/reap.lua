-- Housekeeping. ARGV: now, lease_ms. Answers id, submitter, attempt for every attempt that is lost.
local lease_ms = tonumber(ARGV[2])
local SETTLED_MAX = 200

local last = call('GET', key('reaped'))
call('SET', key('reaped'), int(now))
if not last or now - tonumber(last) > lease_ms / 2 then
  -- Nobody looked for long: Redis or everybody was away, so no silence proves a loss.
  for _, worker in ipairs(call('ZRANGE', key('leases'), 0, -1)) do
    call('ZADD', key('leases'), int(now + lease_ms), worker)
  end
  return {}
end

local losses = {}
for _, worker in ipairs(call('ZRANGEBYSCORE', key('leases'), '-inf', '(' .. int(now))) do
  for _, value in ipairs(lose_worker(worker, 1)) do
    losses[#losses + 1] = value
  end
end

local function settle_all(ids, outcome)
  for _, id in ipairs(ids) do
    local record = read_record(id)
    if record and record.s ~= 'settled' then
      settle_over_worker(id, record, meta_of(id), outcome)
    end
  end
end

settle_all(call('ZRANGEBYSCORE', key('lost'), '-inf', '(' .. int(now), 'LIMIT', 0, SETTLED_MAX), 'failed')
settle_all(call('ZRANGEBYSCORE', key('open'), '-inf', '(' .. int(now - DECIDE_MS), 'LIMIT', 0, SETTLED_MAX), 'timeout')
return losses

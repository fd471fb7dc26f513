-- A worker takes up to `room` jobs in fair order. ARGV: now, worker, tier, slots, room, lease_ms, pool_reserve.
-- Registers the worker and its lease. Answers a flat list: job (msgpack), attempt, ...
local worker, tier = ARGV[2], ARGV[3]
local own_slots, room, lease_ms, reserve = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local CANDIDATES_MAX, PROMOTED_MAX = 256, 100
local queues = base .. 'q:' .. tier .. ':'

if not call('ZSCORE', base .. 'leases', worker) then
  call('ZADD', base .. 'leases', int(now + lease_ms), worker)
  call('SET', base .. 'w:' .. worker, tier)
  call('HSET', base .. 'slots:' .. tier, worker, own_slots)
end
local slots = slots_of(tier)

local function passed_deadline(id, record)
  if now <= record.meta.dl then
    return false
  end
  settle(id, record, 'timeout')
  return true
end

local function give(id, record)
  dequeue(record.meta, id)
  call('HSET', base .. 'r:' .. id, 's', 'running', 'w', worker, 'tk', int(now))
  call('SADD', base .. 'wj:' .. worker, id)
  count_running(record.meta, 1)
  return call('HGET', base .. 'r:' .. id, 'j'), record.a
end

local function charge(meta)
  local of_org, of_ws = flow_times(meta)
  local next_org, next_ws = of_org + meta.cost / meta.weight, of_ws + meta.cost
  call('HSET', base .. 't:' .. tier, 'vt', float(of_org))
  save_times(meta, next_org, next_ws, of_ws)
  if call('EXISTS', base .. 'age:' .. tier) == 1 then
    reorder(meta, next_org, next_ws)
  end
end

-- A job with two strikes runs alone. The first worker to ask is emptied for it.
-- Answers whether this worker gets nothing else now, and the job if it is given.
local function solo()
  local claim = call('GET', base .. 'solow:' .. tier)
  local id = call('LINDEX', base .. 'solo:' .. tier, 0)
  while id do
    local record = read_record(id)
    if not passed_deadline(id, record) then
      if claim and claim ~= worker then
        return false
      end
      call('SET', base .. 'solow:' .. tier, worker, 'PX', KEPT_MS * 2)
      if call('EXISTS', base .. 'wj:' .. worker) == 1 then
        return true
      end
      local job, attempt = give(id, record)
      charge(record.meta)
      return true, {job, attempt}
    end
    id = call('LINDEX', base .. 'solo:' .. tier, 0)
  end
  if claim == worker then
    if call('EXISTS', base .. 'wj:' .. worker) == 1 then
      return true
    end
    call('DEL', base .. 'solow:' .. tier)
  end
  return false
end

-- Batch jobs that have waited long enough compete as if they were interactive.
local function promote()
  local before = '(' .. int(now - AGEING_MS)
  for _, id in ipairs(call('ZRANGEBYSCORE', base .. 'ba:' .. tier, '-inf', before, 'LIMIT', 0, PROMOTED_MAX)) do
    local record = read_record(id)
    local of_org, of_ws = flow_times(record.meta)
    band_remove(record.meta, 'batch', id)
    band_insert(record.meta, 'interactive', id, record.seq, of_org, of_ws)
    call('ZREM', base .. 'ba:' .. tier, id)
  end
end

local function below_share(org)
  local weight = num(call('HGET', base .. 'wt:' .. tier, org))
  local active = num(call('HGET', base .. 't:' .. tier, 'aw'))
  return num(call('HGET', base .. 'run:' .. tier, org)) < slots * weight / (active + 1)
end

local function pick_organisation(band, running)
  if slots < 4 or running < (1 - reserve) * slots then
    return call('ZRANGE', queues .. band, 0, 0)[1]
  end
  for _, org in ipairs(call('ZRANGE', queues .. band, 0, CANDIDATES_MAX - 1)) do
    if below_share(org) then
      return org
    end
  end
  return nil
end

-- The next job in fair order, or nil. Advances the virtual times of its flows.
local function next_job(running)
  for _, band in ipairs({'interactive', 'batch'}) do
    local org = pick_organisation(band, running)
    while org do
      local flows = queues .. band .. ':' .. org
      local ws = call('ZRANGE', flows, 0, 0)[1]
      local id = call('ZRANGE', flows .. ':' .. ws, 0, 0)[1]
      local record = read_record(id)
      if not passed_deadline(id, record) then
        return id, record
      end
      org = pick_organisation(band, running)
    end
  end
  return nil
end

local out = {}
if room > 0 and call('EXISTS', base .. 'age:' .. tier) == 1 then
  local busy, alone = solo()
  if alone then
    return alone
  end
  if busy then
    return out
  end
  promote()
  local running = num(call('HGET', base .. 't:' .. tier, 'running'))
  for _ = 1, room do
    local id, record = next_job(running)
    if not id then
      break
    end
    out[#out + 1], out[#out + 2] = give(id, record)
    charge(record.meta)
    running = running + 1
  end
  if #out > 0 and call('EXISTS', base .. 'age:' .. tier) == 1 then
    ring(base .. 'bell:' .. tier)  -- there is more, for whoever has room
  end
end
return out

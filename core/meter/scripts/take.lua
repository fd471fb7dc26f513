-- A worker takes up to `room` jobs in fair order. ARGV: now, worker, tier, slots, room, lease_ms, pool_reserve.
-- Registers the worker and its lease. Answers a flat list: job (msgpack), attempt, ...; or 'drained' alone.
local worker, tier = ARGV[2], ARGV[3]
local own_slots, room, lease_ms, reserve = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local CANDIDATES_MAX, PROMOTED_MAX = 256, 100
local queues = base .. 'q:' .. tier .. ':'

if not call('ZSCORE', base .. 'leases', worker) then
  call('ZADD', base .. 'leases', now + lease_ms, worker)
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

local function start(id, attempt)
  call('HSET', base .. 'r:' .. id, 's', 'running', 'w', worker, 'tk', now)
  return call('HGET', base .. 'r:' .. id, 'j'), attempt
end

-- Virtual times of the flows that this call has served, by organisation; written once, at its end.
local flows_served = {}

-- Advance the virtual times of a job's flows; answers their new values, and the old one of the organisation.
local function charge(meta)
  local flow = flows_served[meta.org] or {of_ws = {}}
  local org_before, ws_before = flow.of_org, flow.of_ws[meta.ws]
  if not ws_before then
    local of_org
    of_org, ws_before = flow_times(meta)
    org_before = org_before or of_org
  end
  flows_served[meta.org] = flow
  flow.of_org, flow.of_ws[meta.ws], flow.served = org_before + meta.cost / meta.weight, ws_before + meta.cost, ws_before
  return flow.of_org, flow.of_ws[meta.ws], org_before
end

local function save_served()
  for org, flow in pairs(flows_served) do
    local times = {'o:' .. org, flow.of_org, 's:' .. org, flow.served}
    for ws, of_ws in pairs(flow.of_ws) do
      times[#times + 1], times[#times + 2] = 'w:' .. org .. ':' .. ws, of_ws
    end
    call('HSET', base .. 'v:' .. tier, unpack(times))
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
      dequeue(record.meta, id)
      call('SADD', base .. 'wj:' .. worker, id)
      count_running(record.meta, 1)
      local next_org, next_ws, served = charge(record.meta)
      save_served()
      call('HSET', base .. 't:' .. tier, 'vt', served)
      reorder(record.meta, next_org, next_ws)
      return true, {start(id, record.a)}
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

-- What this call has given so far, written at its end: organisation -> jobs, ids, their cost, the virtual time served.
local given = {by_org = {}, ids = {}, cost = 0, served = nil}

-- Whether anybody waits in a band. Nobody comes to wait while this runs, so it is asked once.
local bands_waiting = {}
local function band_waits(band)
  if bands_waiting[band] == nil then
    bands_waiting[band] = call('EXISTS', queues .. band) == 1
  end
  return bands_waiting[band]
end

local function below_share(org)
  local weight = num(call('HGET', base .. 'wt:' .. tier, org))
  local active = num(call('HGET', base .. 't:' .. tier, 'aw'))
  local running = num(call('HGET', base .. 'run:' .. tier, org)) + (given.by_org[org] or 0)
  return running < slots * weight / (active + 1)
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

-- The next job in fair order and its band, or nil.
local function next_job(running)
  for _, band in ipairs({'interactive', 'batch'}) do
    local org = pick_organisation(band, running)
    while org do
      local flows = queues .. band .. ':' .. org
      local ws = call('ZRANGE', flows, 0, 0)[1]
      local id = call('ZRANGE', flows .. ':' .. ws, 0, 0)[1]
      local record = read_record(id)
      if not passed_deadline(id, record) then
        return id, record, band
      end
      org = pick_organisation(band, running)
    end
  end
  return nil
end

local function give(id, record, band)
  local meta = record.meta
  local _, ws_waits, org_waits = band_remove(meta, band, id)
  if meta.band == 'batch' then
    call('ZREM', base .. 'ba:' .. tier, id)
  end
  local next_org, next_ws, served = charge(meta)
  if org_waits then
    call('ZADD', queues .. band, 'XX', next_org, meta.org)
  end
  if ws_waits then
    call('ZADD', queues .. band .. ':' .. meta.org, 'XX', next_ws, meta.ws)
  end
  local other = band == 'batch' and 'interactive' or 'batch'
  if band_waits(other) then
    call('ZADD', queues .. other, 'XX', next_org, meta.org)
    call('ZADD', queues .. other .. ':' .. meta.org, 'XX', next_ws, meta.ws)
  end
  given.by_org[meta.org] = (given.by_org[meta.org] or 0) + 1
  given.ids[#given.ids + 1] = id
  given.cost = given.cost + meta.cost
  given.served = served
  return start(id, record.a)
end

local function write_given()
  local count = #given.ids
  if count == 0 then
    return
  end
  call('ZREM', base .. 'age:' .. tier, unpack(given.ids))
  call('SADD', base .. 'wj:' .. worker, unpack(given.ids))
  call('HINCRBY', base .. 't:' .. tier, 'running', count)
  call('HINCRBY', base .. 't:' .. tier, 'qcost', -given.cost)
  save_served()
  call('HSET', base .. 't:' .. tier, 'vt', given.served)
  for org, jobs in pairs(given.by_org) do
    call('HINCRBY', base .. 'run:' .. tier, org, jobs)
  end
  if call('EXISTS', base .. 'age:' .. tier) == 1 then
    ring(base .. 'bell:' .. tier)  -- there is more, for whoever has room
  end
end

local out = {}
if room > 0 and call('EXISTS', base .. 'age:' .. tier) == 1 then
  local drained = call('HMGET', base .. 'drained', 't:' .. tier, 'w:' .. worker)
  if drained[1] or drained[2] then
    if call('GET', base .. 'solow:' .. tier) == worker then
      call('DEL', base .. 'solow:' .. tier)
    end
    if not drained[1] then
      ring(base .. 'bell:' .. tier)  -- whom it was rung for may be another
    end
    return {'drained'}
  end
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
    local id, record, band = next_job(running)
    if not id then
      break
    end
    out[#out + 1], out[#out + 2] = give(id, record, band)
    running = running + 1
  end
  write_given()
end
return out

-- A worker takes up to `room` jobs in fair order. ARGV: now, worker, tier, slots, room, lease_ms, pool_reserve.
-- Registers the worker and its lease. Answers a flat list: job (msgpack), attempt, ...
local worker, tier = ARGV[2], ARGV[3]
local own_slots, room, lease_ms, reserve = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local CANDIDATES_MAX, PROMOTED_MAX = 256, 100

if not call('ZSCORE', key('leases'), worker) then
  call('ZADD', key('leases'), int(now + lease_ms), worker)
  call('SET', key('w', worker), tier)
  call('HSET', key('slots', tier), worker, own_slots)
end

local slots = 0
for _, count in ipairs(call('HVALS', key('slots', tier))) do
  slots = slots + tonumber(count)
end

local function pass_deadline(id, meta)
  if now <= meta.dl then
    return false
  end
  settle(id, read_record(id), meta, 'timeout')
  return true
end

local function give(id, meta)
  dequeue(meta, id)
  call('HSET', key('r', id), 's', 'running', 'w', worker, 'tk', int(now))
  call('SADD', key('wj', worker), id)
  count_running(tier, meta.org, 1)
  return call('GET', key('j', id)), tonumber(call('HGET', key('r', id), 'a'))
end

-- A job with two strikes runs alone. The first worker to ask is emptied for it.
local function solo()
  local claim = call('GET', key('solow', tier))
  while call('LLEN', key('solo', tier)) > 0 do
    local id = call('LINDEX', key('solo', tier), 0)
    local meta = meta_of(id)
    if not pass_deadline(id, meta) then
      if claim and claim ~= worker then
        return false
      end
      call('SET', key('solow', tier), worker, 'PX', KEPT_MS * 2)
      if call('SCARD', key('wj', worker)) > 0 then
        return true
      end
      return true, {give(id, meta)}
    end
  end
  if claim == worker then
    if call('SCARD', key('wj', worker)) > 0 then
      return true
    end
    call('DEL', key('solow', tier))
  end
  return false
end

-- Batch jobs that have waited long enough compete as if they were interactive.
local function promote()
  local aged = call('ZRANGEBYSCORE', key('ba', tier), '-inf', '(' .. int(now - AGEING_MS), 'LIMIT', 0, PROMOTED_MAX)
  for _, id in ipairs(aged) do
    local meta = meta_of(id)
    band_remove(tier, 'batch', meta.org, meta.ws, id)
    band_insert(tier, 'interactive', meta.org, meta.ws, id, tonumber(call('HGET', key('r', id), 'seq')))
    call('ZREM', key('ba', tier), id)
  end
end

local function below_share(org)
  local weight = num(call('HGET', key('wt', tier), org))
  local active = num(call('HGET', key('t', tier), 'aw'))
  return num(call('HGET', key('run', tier), org)) < slots * weight / (active + 1)
end

local function pick_organisation(band)
  local orgs = key('q', tier, band)
  if slots < 4 or num(call('HGET', key('t', tier), 'running')) < (1 - reserve) * slots then
    return call('ZRANGE', orgs, 0, 0)[1]
  end
  for _, org in ipairs(call('ZRANGE', orgs, 0, CANDIDATES_MAX - 1)) do
    if below_share(org) then
      return org
    end
  end
  return nil
end

-- The next job in fair order, or nil. Advances the virtual times of its flows.
local function next_job()
  for _, band in ipairs({'interactive', 'batch'}) do
    local org = pick_organisation(band)
    while org do
      local ws = call('ZRANGE', key('q', tier, band, org), 0, 0)[1]
      local id = call('ZRANGE', key('q', tier, band, org, ws), 0, 0)[1]
      local meta = meta_of(id)
      if not pass_deadline(id, meta) then
        local of_org, of_ws = virtual(tier, 'o:' .. org), virtual(tier, 'w:' .. org .. ':' .. ws)
        call('HSET', key('t', tier), 'vt', float(of_org))
        call('HSET', key('v', tier), 's:' .. org, float(of_ws))
        set_virtual(tier, org, nil, of_org + meta.cost / meta.weight)
        set_virtual(tier, org, ws, of_ws + meta.cost)
        return id, meta
      end
      org = pick_organisation(band)
    end
  end
  return nil
end

local out = {}
if room > 0 then
  local busy, alone = solo()
  if alone then
    return alone
  end
  if busy then
    return out
  end
  promote()
  for _ = 1, room do
    local id, meta = next_job()
    if not id then
      break
    end
    local job, attempt = give(id, meta)
    out[#out + 1] = job
    out[#out + 1] = attempt
  end
end
return out

-- What every script begins with. KEYS[1] is the cell's tag, ARGV[1] is now in ms, or empty for Redis TIME.
-- Layout: core/meter/keys.py. Rules: docs/queue.md. Each redis.call costs about a microsecond, and each write another one in the
-- append-only file: what can be read or written together is.
local base = KEYS[1] .. ':'
local call = redis.call

local now
if ARGV[1] == '' then
  local time = call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
else
  now = tonumber(ARGV[1])
end

local KEPT_MS, DECIDE_MS, AGEING_MS = 600000, 5000, 60000
local STRIKES_MAX, SOLO_STRIKES = 3, 2
local DEAD_LETTERS_MAX, DEAD_JOB_BYTES_MAX, DEAD_KEPT_MS = 1000, 131072, 604800000

-- Integers above 10^14 lose digits through tostring and `..`. As arguments of `call` numbers keep all their digits.
local function int(number)
  return string.format('%.0f', number)
end

local function float(number)
  return string.format('%.17g', number)
end

local function num(value)
  return tonumber(value) or 0
end

-- Cost in nano: exact sum, divided once by 1 000, half to even. The same as core/meter/cost.py. The sum of products may
-- pass 2^53, so thousands and remainders are carried apart.
local function cost_nano(prompt, cached, completion, price_in, price_cached, price_out)
  local whole, rest = 0, 0
  local function add(tokens, price)
    whole = whole + tokens * math.floor(price / 1000)
    rest = rest + tokens * (price % 1000)
  end
  add(prompt - cached, price_in)
  add(cached, price_cached)
  add(completion, price_out)
  whole = whole + math.floor(rest / 1000)
  rest = rest % 1000
  if rest > 500 or (rest == 500 and whole % 2 == 1) then
    whole = whole + 1
  end
  return whole
end

local function ring(bell)
  if call('LLEN', bell) == 0 then
    call('LPUSH', bell, '1')
  end
end

-- The epoch that Redis lives in: its number, and whether it is open.
local function epoch_now()
  local state = call('HMGET', base .. 'epoch', 'number', 'open')
  return num(state[1]), state[2] == '1'
end

-- An organisation's credit, of the epoch it was given in, and its generation. Zeros in another epoch.
local function wallet_of(org, epoch)
  local state = call('HMGET', base .. 'o:' .. org, 'ep', 'credit', 'resv', 'gen')
  if num(state[1]) ~= epoch then
    return {credit = 0, resv = 0, gen = num(state[4])}
  end
  return {credit = num(state[2]), resv = num(state[3]), gen = num(state[4])}
end

local function save_wallet(org, epoch, wallet)
  call('HSET', base .. 'o:' .. org, 'ep', int(epoch), 'credit', int(wallet.credit), 'resv', int(wallet.resv))
end

-- Of prices {version, input, cached, output, start}, by start: the one in force, or nil.
local function price_at(prices, at)
  for i = #prices, 1, -1 do
    if prices[i][5] <= at then
      return prices[i]
    end
  end
end

-- The virtual times of an organisation, one of its workspaces, and the workspace it served last.
local function flow_times(meta)
  local org = meta.org
  local times = call('HMGET', base .. 'v:' .. meta.tier, 'o:' .. org, 'w:' .. org .. ':' .. meta.ws, 's:' .. org)
  return num(times[1]), num(times[2]), num(times[3])
end

local function save_times(meta, of_org, of_ws, served)
  local org = meta.org
  call('HSET', base .. 'v:' .. meta.tier, 'o:' .. org, of_org, 'w:' .. org .. ':' .. meta.ws, of_ws, 's:' .. org, served)
end

-- Move a flow that waits to its new place in the order of each band.
local function reorder(meta, of_org, of_ws)
  for _, band in ipairs({'interactive', 'batch'}) do
    local orgs = base .. 'q:' .. meta.tier .. ':' .. band
    if call('EXISTS', orgs) == 1 then
      call('ZADD', orgs, 'XX', of_org, meta.org)
      call('ZADD', orgs .. ':' .. meta.org, 'XX', of_ws, meta.ws)
    end
  end
end

local function band_insert(meta, band, id, seq, of_org, of_ws)
  local orgs = base .. 'q:' .. meta.tier .. ':' .. band
  local flows = orgs .. ':' .. meta.org
  call('ZADD', flows .. ':' .. meta.ws, seq, id)
  call('ZADD', flows, of_ws, meta.ws)
  call('ZADD', orgs, of_org, meta.org)
end

-- Answers whether it was there, and whether its workspace and its organisation still wait in this band.
local function band_remove(meta, band, id)
  local orgs = base .. 'q:' .. meta.tier .. ':' .. band
  local flows = orgs .. ':' .. meta.org
  local flow = flows .. ':' .. meta.ws
  if call('ZREM', flow, id) == 0 then
    return false
  end
  if call('EXISTS', flow) == 1 then
    return true, true, true
  end
  call('ZREM', flows, meta.ws)
  if call('EXISTS', flows) == 1 then
    return true, false, true
  end
  call('ZREM', orgs, meta.org)
  return true, false, false
end

-- Put a job into its flow. A flow that was empty starts at no less than the flow last served.
local function enqueue(meta, id, seq, admitted_ms, strikes)
  local tier = meta.tier
  call('ZADD', base .. 'age:' .. tier, admitted_ms, id)
  call('HINCRBY', base .. 't:' .. tier, 'qcost', meta.cost)
  if strikes >= SOLO_STRIKES then
    call('RPUSH', base .. 'solo:' .. tier, id)
  else
    local org_before, ws_before, served = flow_times(meta)
    local of_org, of_ws = org_before, ws_before
    local interactive = base .. 'q:' .. tier .. ':interactive:' .. meta.org
    local batch = base .. 'q:' .. tier .. ':batch:' .. meta.org
    local org_waits = call('EXISTS', interactive, batch) > 0
    if not org_waits then
      of_org = math.max(of_org, num(call('HGET', base .. 't:' .. tier, 'vt')))
    end
    if not org_waits or call('EXISTS', interactive .. ':' .. meta.ws, batch .. ':' .. meta.ws) == 0 then
      of_ws = math.max(of_ws, served)
    end
    if of_org > org_before or of_ws > ws_before then
      save_times(meta, of_org, of_ws, served)
    end
    band_insert(meta, meta.band, id, seq, of_org, of_ws)
    if meta.band == 'batch' then
      call('ZADD', base .. 'ba:' .. tier, admitted_ms, id)
    end
  end
  ring(base .. 'bell:' .. tier)
end

local function dequeue(meta, id)
  local tier = meta.tier
  if call('ZREM', base .. 'age:' .. tier, id) == 1 then
    call('HINCRBY', base .. 't:' .. tier, 'qcost', int(-meta.cost))
  end
  if meta.band == 'batch' then
    call('ZREM', base .. 'ba:' .. tier, id)
    if band_remove(meta, 'batch', id) then
      return
    end
  end
  if not band_remove(meta, 'interactive', id) then
    call('LREM', base .. 'solo:' .. tier, 1, id)
  end
end

-- An organisation's running jobs in a tier, up or down.
local function count_running(meta, step)
  call('HINCRBY', base .. 't:' .. meta.tier, 'running', step)
  if call('HINCRBY', base .. 'run:' .. meta.tier, meta.org, step) <= 0 then
    call('HDEL', base .. 'run:' .. meta.tier, meta.org)
  end
end

-- The job is no longer on its worker. One that ran alone gives its worker back to the others.
local function release_worker(record, id)
  local worker = record.w
  call('SREM', base .. 'wj:' .. worker, id)
  count_running(record.meta, -1)
  local solo_worker = base .. 'solow:' .. record.meta.tier
  if record.k >= SOLO_STRIKES and call('GET', solo_worker) == worker then
    call('DEL', solo_worker)
  end
  if call('EXISTS', base .. 'age:' .. record.meta.tier) == 1 then
    ring(base .. 'bell:' .. record.meta.tier)  -- what the reserve or a solo run held back may go now
  end
end

-- A request's record, or nil once it is settled. `meta` is the admission as it came.
local function read_record(id)
  local r = call('HMGET', base .. 'r:' .. id, 's', 'a', 'w', 'k', 'adm', 'tk', 'seq', 'res', 'cm', 'm', 'ep', 'ce', 'out')
  if not r[1] then
    return nil
  end
  local meta, epoch = cmsgpack.unpack(r[10]), tonumber(r[11])
  return {s = r[1], a = tonumber(r[2]), w = r[3], k = num(r[4]), adm = tonumber(r[5]), tk = num(r[6]),
          seq = tonumber(r[7]), res = tonumber(r[8]), cm = r[9], meta = meta,
          ep = epoch, ce = tonumber(r[12]) or epoch, out = tonumber(r[13]) or meta.out}
end

local function slots_of(tier)
  local slots = 0
  for _, count in ipairs(call('HVALS', base .. 'slots:' .. tier)) do
    slots = slots + tonumber(count)
  end
  return slots
end

-- Queued cost over the tier's rate: its slots times the smoothed cost per ms and slot. 0 while nothing is known.
local function expected_wait_ms(tier)
  local state = call('HMGET', base .. 't:' .. tier, 'qcost', 'speed')
  if not state[2] or num(state[1]) <= 0 then
    return 0
  end
  local rate = tonumber(state[2]) * slots_of(tier)
  return rate > 0 and math.floor(num(state[1]) / rate) or 0
end

local function standing(id)
  local r = call('HMGET', base .. 'r:' .. id, 's', 'a', 'm')
  if not r[1] then
    local kept = call('GET', base .. 'e:' .. id)
    if not kept then
      return {'unknown', 0, '', -1, 0}
    end
    local attempt, outcome, prompt, completion, cached, cost, ended = unpack(cmsgpack.unpack(kept))
    return {'settled', attempt, ended, -1, 0, outcome, prompt, completion, cached, cost}
  end
  local position, wait_ms = -1, 0
  if r[1] == 'queued' then
    local meta = cmsgpack.unpack(r[3])
    local flow = ':' .. meta.org .. ':' .. meta.ws
    position = call('ZRANK', base .. 'q:' .. meta.tier .. ':' .. meta.band .. flow, id)
      or call('ZRANK', base .. 'q:' .. meta.tier .. ':interactive' .. flow, id) or 0
    wait_ms = expected_wait_ms(meta.tier)
  end
  return {r[1], tonumber(r[2]), '', position, wait_ms}
end

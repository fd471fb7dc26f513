-- What every script begins with. KEYS[1] is the cell's tag, ARGV[1] is now in ms, or empty for Redis TIME.
-- Layout: core/meter/keys.py. Rules: docs/queue.md.
local base = KEYS[1]
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
local DEAD_LETTERS_MAX = 1000

local function key(...)
  return base .. ':' .. table.concat({...}, ':')
end

-- Integers above 10^14 lose digits through tostring and `..`.
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
    local high = math.floor(price / 1000)
    local low = price % 1000
    whole = whole + tokens * high
    rest = rest + tokens * low
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
    call('PEXPIRE', bell, KEPT_MS)
  end
end

-- tokens per minute: an even bucket. Answers its level now.
local function bucket_level(scope, limit)
  local state = call('HMGET', key('tpm', scope), 'l', 't')
  if not state[1] then
    return limit
  end
  local elapsed = math.max(0, now - tonumber(state[2]))
  return math.min(limit, tonumber(state[1]) + elapsed * limit / 60000)
end

local function bucket_set(scope, limit, level)
  local name = key('tpm', scope)
  if level >= limit then
    call('DEL', name)
    return
  end
  call('HSET', name, 'l', float(level), 't', int(now))
  call('PEXPIRE', name, int(math.ceil((limit - level) * 60000 / limit) + 1000))
end

local function meta_of(id)
  local raw = call('GET', key('m', id))
  return raw and cmsgpack.unpack(raw)
end

-- Virtual time of a flow, and its place in both bands' orders.
local function set_virtual(tier, org, ws, value)
  local text = float(value)
  if ws then
    call('HSET', key('v', tier), 'w:' .. org .. ':' .. ws, text)
    call('ZADD', key('q', tier, 'interactive', org), 'XX', text, ws)
    call('ZADD', key('q', tier, 'batch', org), 'XX', text, ws)
  else
    call('HSET', key('v', tier), 'o:' .. org, text)
    call('ZADD', key('q', tier, 'interactive'), 'XX', text, org)
    call('ZADD', key('q', tier, 'batch'), 'XX', text, org)
  end
end

local function virtual(tier, name)
  return num(call('HGET', key('v', tier), name))
end

local function band_insert(tier, band, org, ws, id, seq)
  local orgs = key('q', tier, band)
  local flows = key('q', tier, band, org)
  call('ZADD', orgs, float(virtual(tier, 'o:' .. org)), org)
  call('ZADD', flows, float(virtual(tier, 'w:' .. org .. ':' .. ws)), ws)
  call('ZADD', key('q', tier, band, org, ws), int(seq), id)
end

local function band_remove(tier, band, org, ws, id)
  local flow = key('q', tier, band, org, ws)
  if call('ZREM', flow, id) == 0 then
    return false
  end
  if call('EXISTS', flow) == 0 then
    local flows = key('q', tier, band, org)
    call('ZREM', flows, ws)
    if call('EXISTS', flows) == 0 then
      call('ZREM', key('q', tier, band), org)
    end
  end
  return true
end

local function flow_waits(tier, org, ws)
  for _, band in ipairs({'interactive', 'batch'}) do
    local name = ws and key('q', tier, band, org, ws) or key('q', tier, band, org)
    if call('EXISTS', name) == 1 then
      return true
    end
  end
  return false
end

-- Put a job into its flow. A flow that was empty starts at no less than the flow last served.
local function enqueue(meta, id, seq, admitted_ms, strikes)
  local tier, org, ws = meta.tier, meta.org, meta.ws
  call('ZADD', key('age', tier), int(admitted_ms), id)
  call('HINCRBY', key('t', tier), 'qcost', int(meta.cost))
  if strikes >= SOLO_STRIKES then
    call('RPUSH', key('solo', tier), id)
  else
    if not flow_waits(tier, org) then
      local served = num(call('HGET', key('t', tier), 'vt'))
      set_virtual(tier, org, nil, math.max(virtual(tier, 'o:' .. org), served))
    end
    if not flow_waits(tier, org, ws) then
      local served = virtual(tier, 's:' .. org)
      set_virtual(tier, org, ws, math.max(virtual(tier, 'w:' .. org .. ':' .. ws), served))
    end
    band_insert(tier, meta.band, org, ws, id, seq)
    if meta.band == 'batch' then
      call('ZADD', key('ba', tier), int(admitted_ms), id)
    end
  end
  ring(key('bell', tier))
end

local function dequeue(meta, id)
  local tier = meta.tier
  if call('ZREM', key('age', tier), id) == 1 then
    call('HINCRBY', key('t', tier), 'qcost', int(-meta.cost))
  end
  call('ZREM', key('ba', tier), id)
  if not band_remove(tier, 'interactive', meta.org, meta.ws, id) then
    if not band_remove(tier, 'batch', meta.org, meta.ws, id) then
      call('LREM', key('solo', tier), 1, id)
    end
  end
end

-- An organisation's running jobs in a tier, up or down.
local function count_running(tier, org, step)
  call('HINCRBY', key('t', tier), 'running', step)
  if call('HINCRBY', key('run', tier), org, step) <= 0 then
    call('HDEL', key('run', tier), org)
  end
end

-- The job is no longer on its worker.
local function release_worker(meta, id, worker)
  call('SREM', key('wj', worker), id)
  count_running(meta.tier, meta.org, -1)
  if call('GET', key('solow', meta.tier)) == worker and call('SCARD', key('wj', worker)) == 0 then
    call('DEL', key('solow', meta.tier))
  end
end

-- Queued cost over the tier's rate: its slots times the smoothed cost per ms and slot. 0 while nothing is known.
local function expected_wait_ms(tier)
  local state = call('HMGET', key('t', tier), 'qcost', 'speed')
  if not state[2] or num(state[1]) <= 0 then
    return 0
  end
  local slots = 0
  for _, count in ipairs(call('HVALS', key('slots', tier))) do
    slots = slots + tonumber(count)
  end
  local rate = tonumber(state[2]) * slots
  return rate > 0 and math.floor(num(state[1]) / rate) or 0
end

local function standing(id)
  local r = call('HMGET', key('r', id), 's', 'a', 'o', 'bp', 'bc', 'bk', 'cost')
  if not r[1] then
    return {'unknown', 0, '', -1, 0}
  end
  if r[1] == 'settled' then
    local ended = call('GET', key('e', id)) or ''
    return {r[1], tonumber(r[2]), ended, -1, 0, r[3], tonumber(r[4]), tonumber(r[5]), tonumber(r[6]), tonumber(r[7])}
  end
  local position, wait_ms = -1, 0
  if r[1] == 'queued' then
    local meta = meta_of(id)
    position = call('ZRANK', key('q', meta.tier, meta.band, meta.org, meta.ws), id)
      or call('ZRANK', key('q', meta.tier, 'interactive', meta.org, meta.ws), id) or 0
    wait_ms = expected_wait_ms(meta.tier)
  end
  return {r[1], tonumber(r[2]), '', position, wait_ms}
end

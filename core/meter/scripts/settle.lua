-- The one place where a request ends. `counted` is nil when no worker told what it computed.
-- Who pays: docs/queue.md, "What is billed".
local function billed_tokens(record, outcome, counted)
  local meta = record.meta
  if not counted or not (outcome == 'finished' or outcome == 'cancelled') then
    return 0, 0, 0
  end
  local completion = math.min(counted.completion, record.out)
  if record.cm then
    completion = math.min(completion, tonumber(record.cm))
  elseif meta.kind == 'chat' and outcome == 'finished' and counted.completion == 0 then
    return 0, 0, 0
  end
  local prompt = math.min(counted.prompt, meta.pt)
  return prompt, completion, math.min(counted.cached, prompt)
end

-- Reserved credit goes back to the epoch it came from; in a later one nothing moves, SQL settles it.
local function give_back_credit(record, cost)
  if record.res == 0 and cost == 0 then
    return
  end
  local key = base .. 'o:' .. record.meta.org
  local state = call('HMGET', key, 'ep', 'credit', 'resv')
  if num(state[1]) == record.ep then
    call('HSET', key, 'credit', num(state[2]) + record.res - cost, 'resv', num(state[3]) - record.res)
  end
end

-- A calendar counter holds what was reserved. In an epoch later than the admission's it holds nothing of this record yet.
local function correct_calendar(rule, record, epoch, reserved, used)
  local key = calendar_key(rule[2], window_at(rule, record.adm), epoch)
  if record.ce ~= epoch then
    add_if_counted(key, used)
  elseif used ~= reserved then
    call('INCRBY', key, used - reserved)
  end
end

local function give_back_limits(record, used_tokens, used_nano)
  local reserved_tokens, corrected, epoch = record.meta.pt + record.out, {}, nil
  for _, rule in ipairs(record.meta.rules) do
    local kind, name = rule[1], rule[2]
    if corrected[name] then
      kind = nil  -- shared, and done
    elseif kind == 'concurrency' then
      if call('HINCRBY', base .. 'conc', name, -1) <= 0 then
        call('HDEL', base .. 'conc', name)
      end
    elseif kind == 'tokens_per_minute' then
      if reserved_tokens ~= used_tokens then
        local level = bucket_level(name, rule[3]) + reserved_tokens - used_tokens
        bucket_set(name, rule[3], math.min(rule[3], level))
      end
    elseif CALENDAR[kind] then
      epoch = epoch or epoch_now()
      if kind == 'tokens_per_month' then
        correct_calendar(rule, record, epoch, reserved_tokens, used_tokens)
      else
        correct_calendar(rule, record, epoch, record.res, used_nano)
      end
    end
    corrected[name] = true
  end
end

-- An organisation's last open job leaves the tier: its weight no longer counts in the shares of the others.
local function close_flow(meta)
  local tier, org = meta.tier, meta.org
  if call('HINCRBY', base .. 'act:' .. tier, org, -1) > 0 then
    return
  end
  call('HDEL', base .. 'act:' .. tier, org)
  call('HINCRBY', base .. 't:' .. tier, 'aw', -num(call('HGET', base .. 'wt:' .. tier, org)))
  call('HDEL', base .. 'wt:' .. tier, org)
end

local function correct_order(meta, record, counted)
  if not counted or record.tk == 0 then
    return
  end
  local actual = counted.prompt - counted.cached + counted.completion
  local difference = actual - meta.cost
  if difference ~= 0 then
    local of_org, of_ws, served = flow_times(meta)
    of_org, of_ws = of_org + difference / meta.weight, of_ws + difference
    save_times(meta, of_org, of_ws, served)
    reorder(meta, of_org, of_ws)
  end
  local speed = actual / math.max(1, now - record.tk)
  local before = call('HGET', base .. 't:' .. meta.tier, 'speed')
  if before then
    speed = tonumber(before) * 0.9 + speed * 0.1
  end
  call('HSET', base .. 't:' .. meta.tier, 'speed', speed)
end

-- One msgpack array in the order of core.meter.usage.UsageEvent.
local function usage_event(id, record, outcome, billed, decoded, first_token_ms)
  local meta = record.meta
  return {
    id, meta.org, meta.ws, meta.key, meta.tier, meta.kind, outcome, record.a, meta.str,
    billed.prompt, billed.completion, billed.cached, decoded, billed.cost, price_at(meta.prices, record.adm)[1],
    record.adm, record.tk, first_token_ms, now, record.ep}
end

local function bill(record, outcome, counted)
  local prompt, completion, cached = billed_tokens(record, outcome, counted)
  local price = price_at(record.meta.prices, record.adm)
  local cost = cost_nano(prompt, cached, completion, price[2], price[3], price[4])
  return {prompt = prompt, completion = completion, cached = cached, cost = cost}
end

-- Only a finished request keeps its claim; and an answer that outlived its gateway, with the event that is due when
-- somebody fetches it.
local function settle_claim(id, record, outcome, counted, whole, first_token_ms)
  local claim = record.meta.cl
  if not claim or outcome == 'finished' then
    return
  end
  if outcome == 'gateway_lost' and whole and not record.cm then
    local billed = bill(record, 'finished', counted)
    local due = usage_event(id .. '-fetched', record, 'finished', billed, counted.completion, first_token_ms)
    call('SET', base .. 'f:' .. id, cmsgpack.pack(due), 'PX', KEPT_MS)
    return
  end
  call('DEL', base .. 'i:' .. claim[1])
end

-- `ended`: the end event, to be kept; `whole`: it holds the whole answer. All three are nil without a worker's word.
local function settle(id, record, outcome, counted, ended, whole, first_token_ms)
  local meta = record.meta
  local billed = bill(record, outcome, counted)
  if record.s == 'queued' then
    dequeue(meta, id)
  elseif record.s == 'running' then
    release_worker(record, id)
  elseif record.s == 'lost' then
    call('ZREM', base .. 'lost', id)
  end
  give_back_credit(record, billed.cost)
  give_back_limits(record, billed.prompt + billed.completion, billed.cost)
  correct_order(meta, record, counted)
  close_flow(meta)
  call('ZREM', base .. 'open', id)
  local decoded = counted and counted.completion or 0
  call('XADD', base .. 'usage', '*', 'u',
    cmsgpack.pack(usage_event(id, record, outcome, billed, decoded, first_token_ms or 0)))
  settle_claim(id, record, outcome, counted, whole, first_token_ms or 0)
  -- What is kept for 10 minutes is small: many requests end in 10 minutes.
  call('DEL', base .. 'r:' .. id)
  call('SET', base .. 'e:' .. id,
    cmsgpack.pack({record.a, outcome, billed.prompt, billed.completion, billed.cached, billed.cost, ended or ''}),
    'PX', KEPT_MS)
  return billed
end

-- It lost its last worker, and is about to be settled. A job that is not too large is kept with the letter: an operator
-- may want to run it again.
local function bury(id, record)
  local meta, job = record.meta, call('HGET', base .. 'r:' .. id, 'j')
  call('XADD', base .. 'dead', 'MAXLEN', '~', DEAD_LETTERS_MAX, '*', 'request_id', id, 'tier', meta.tier,
    'organisation', meta.org, 'workspace', meta.ws, 'lost_ms', int(now), 'j', #job <= DEAD_JOB_BYTES_MAX and job or '')
  call('PEXPIRE', base .. 'dead', DEAD_KEPT_MS)
end

-- Settle what is still on a worker without its word: the number is raised, so that what it says later is refused.
local function settle_over_worker(id, record, outcome)
  local worker = record.s == 'running' and record.w
  record.a = call('HINCRBY', base .. 'r:' .. id, 'a', 1)
  settle(id, record, outcome)
  if worker then
    call('SADD', base .. 'wc:' .. worker, id)
    ring(base .. 'wb:' .. worker)
  end
end

-- A worker is gone: its requests wait for their submitters' decision. Answers id, submitter, attempt for each.
local function lose_worker(worker, strike)
  local losses = {}
  for _, id in ipairs(call('SMEMBERS', base .. 'wj:' .. worker)) do
    local record = read_record(id)
    if record and record.s == 'running' and record.w == worker then
      release_worker(record, id)
      call('HSET', base .. 'r:' .. id, 's', 'lost', 'k', int(record.k + strike))
      call('ZADD', base .. 'lost', int(now + DECIDE_MS), id)
      losses[#losses + 1] = id
      losses[#losses + 1] = record.meta.sub
      losses[#losses + 1] = record.a
    end
  end
  local tier = call('GET', base .. 'w:' .. worker)
  if tier then
    call('HDEL', base .. 'slots:' .. tier, worker)
    if call('GET', base .. 'solow:' .. tier) == worker then
      call('DEL', base .. 'solow:' .. tier)
    end
    ring(base .. 'bell:' .. tier)
  end
  call('ZREM', base .. 'leases', worker)
  call('HDEL', base .. 'drained', 'w:' .. worker)
  call('DEL', base .. 'w:' .. worker, base .. 'wj:' .. worker, base .. 'wc:' .. worker, base .. 'wb:' .. worker)
  return losses
end

-- The one place where a request ends. `counted` is nil when no worker told what it computed.
-- Who pays: docs/queue.md, "What is billed".
local function billed_tokens(meta, record, outcome, counted)
  if not counted or not (outcome == 'finished' or outcome == 'cancelled') then
    return 0, 0, 0
  end
  local completion = counted.completion
  if record.cm then
    completion = math.min(completion, tonumber(record.cm))
  elseif meta.kind == 'chat' and outcome == 'finished' and completion == 0 then
    return 0, 0, 0
  end
  return counted.prompt, completion, counted.cached
end

local function give_back_limits(meta, reserved_tokens, used_tokens)
  for _, rule in ipairs(meta.rules) do
    local scope = rule[2] .. ':' .. rule[3]
    if rule[1] == 'concurrency' then
      if call('HINCRBY', base .. 'conc', scope, -1) <= 0 then
        call('HDEL', base .. 'conc', scope)
      end
    elseif rule[1] == 'tokens_per_minute' and reserved_tokens ~= used_tokens then
      local level = bucket_level(scope, rule[4]) + reserved_tokens - used_tokens
      bucket_set(scope, rule[4], math.min(rule[4], level))
    end
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
  call('HSET', base .. 't:' .. meta.tier, 'speed', float(speed))
end

-- The usage event is one msgpack array in the order of core.meter.usage.UsageEvent.
local function append_usage(id, record, outcome, billed, decoded, first_token_ms)
  local meta = record.meta
  call('XADD', base .. 'usage', '*', 'u', cmsgpack.pack({
    id, meta.org, meta.ws, meta.key, meta.tier, meta.kind, outcome, record.a, meta.str,
    billed.prompt, billed.completion, billed.cached, decoded, billed.cost, meta.pv,
    record.adm, record.tk, first_token_ms, now}))
end

local function settle(id, record, outcome, counted, ended, first_token_ms)
  local meta = record.meta
  local prompt, completion, cached = billed_tokens(meta, record, outcome, counted)
  local cost = cost_nano(prompt, cached, completion, meta.pi, meta.pc, meta.po)
  if record.s == 'queued' then
    dequeue(meta, id)
  elseif record.s == 'running' then
    release_worker(record, id)
  elseif record.s == 'lost' then
    call('ZREM', base .. 'lost', id)
  end
  if record.res ~= cost then
    call('HINCRBY', base .. 'credit', meta.org, int(record.res - cost))
  end
  give_back_limits(meta, meta.pt + meta.out, prompt + completion)
  correct_order(meta, record, counted)
  close_flow(meta)
  call('ZREM', base .. 'open', id)
  local billed = {prompt = prompt, completion = completion, cached = cached, cost = cost}
  append_usage(id, record, outcome, billed, counted and counted.completion or 0, first_token_ms or 0)
  -- What is kept for 10 minutes is small: many requests end in 10 minutes.
  call('DEL', base .. 'r:' .. id)
  call('SET', base .. 'e:' .. id, cmsgpack.pack({record.a, outcome, prompt, completion, cached, cost, ended or ''}),
    'PX', KEPT_MS)
  return prompt, completion, cached, cost
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
  call('DEL', base .. 'w:' .. worker, base .. 'wj:' .. worker, base .. 'wc:' .. worker, base .. 'wb:' .. worker)
  return losses
end

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
      if call('HINCRBY', key('conc'), scope, -1) <= 0 then
        call('HDEL', key('conc'), scope)
      end
    elseif rule[1] == 'tokens_per_minute' then
      local level = bucket_level(scope, rule[4]) + reserved_tokens - used_tokens
      bucket_set(scope, rule[4], math.min(rule[4], level))
    end
  end
end

-- An organisation's last open job leaves the tier: its weight no longer counts in the shares of the others.
local function close_flow(meta)
  local tier, org = meta.tier, meta.org
  if call('HINCRBY', key('act', tier), org, -1) > 0 then
    return
  end
  call('HDEL', key('act', tier), org)
  call('HINCRBY', key('t', tier), 'aw', -num(call('HGET', key('wt', tier), org)))
  call('HDEL', key('wt', tier), org)
end

local function correct_order(meta, record, counted)
  if not counted or num(record.tk) == 0 then
    return
  end
  local tier, org, ws = meta.tier, meta.org, meta.ws
  local actual = counted.prompt - counted.cached + counted.completion
  local difference = actual - meta.cost
  if difference ~= 0 then
    set_virtual(tier, org, nil, virtual(tier, 'o:' .. org) + difference / meta.weight)
    set_virtual(tier, org, ws, virtual(tier, 'w:' .. org .. ':' .. ws) + difference)
  end
  local speed = actual / math.max(1, now - tonumber(record.tk))
  local before = call('HGET', key('t', tier), 'speed')
  if before then
    speed = tonumber(before) * 0.9 + speed * 0.1
  end
  call('HSET', key('t', tier), 'speed', float(speed))
end

local function read_record(id)
  local r = call('HMGET', key('r', id), 's', 'a', 'w', 'k', 'adm', 'tk', 'seq', 'res', 'cm')
  if not r[1] then
    return nil
  end
  return {s = r[1], a = tonumber(r[2]), w = r[3], k = num(r[4]), adm = tonumber(r[5]), tk = num(r[6]),
          seq = tonumber(r[7]), res = tonumber(r[8]), cm = r[9]}
end

local function settle(id, record, meta, outcome, counted, ended, first_token_ms)
  local prompt, completion, cached = billed_tokens(meta, record, outcome, counted)
  local cost = cost_nano(prompt, cached, completion, meta.pi, meta.pc, meta.po)
  if record.s == 'queued' then
    dequeue(meta, id)
  elseif record.s == 'running' then
    release_worker(meta, id, record.w)
  elseif record.s == 'lost' then
    call('ZREM', key('lost'), id)
  end
  if record.res ~= cost then
    call('HINCRBY', key('credit'), meta.org, int(record.res - cost))
  end
  give_back_limits(meta, meta.pt + meta.out, prompt + completion)
  correct_order(meta, record, counted)
  close_flow(meta)
  call('ZREM', key('open'), id)
  call('XADD', key('usage'), '*', 'request_id', id, 'organisation', meta.org, 'workspace', meta.ws,
    'key_id', meta.key, 'tier', meta.tier, 'kind', meta.kind, 'outcome', outcome, 'attempt', int(record.a),
    'streamed', meta.str and '1' or '0', 'prompt_tokens', int(prompt), 'completion_tokens', int(completion),
    'cached_tokens', int(cached), 'decoded_tokens', int(counted and counted.completion or 0),
    'cost_nano', int(cost), 'price_version', meta.pv, 'admitted_ms', int(record.adm), 'taken_ms', int(record.tk),
    'first_token_ms', int(first_token_ms or 0), 'settled_ms', int(now))
  local name = key('r', id)
  call('HSET', name, 's', 'settled', 'o', outcome, 'bp', int(prompt), 'bc', int(completion), 'bk', int(cached),
    'cost', int(cost))
  call('PEXPIRE', name, KEPT_MS)
  call('DEL', key('j', id), key('m', id))
  if ended then
    call('SET', key('e', id), ended, 'PX', KEPT_MS)
  end
  return prompt, completion, cached, cost
end

-- Settle what is still on a worker without its word: the number is raised, so that what it says later is refused.
local function settle_over_worker(id, record, meta, outcome)
  local worker = record.s == 'running' and record.w
  record.a = call('HINCRBY', key('r', id), 'a', 1)
  settle(id, record, meta, outcome)
  if worker then
    call('SADD', key('wc', worker), id)
    ring(key('wb', worker))
  end
end

-- A worker is gone: its requests wait for their submitters' decision. Answers id, submitter, attempt for each.
local function lose_worker(worker, strike)
  local losses = {}
  for _, id in ipairs(call('SMEMBERS', key('wj', worker))) do
    local record = read_record(id)
    if record and record.s == 'running' and record.w == worker then
      local meta = meta_of(id)
      release_worker(meta, id, worker)
      call('HSET', key('r', id), 's', 'lost', 'k', int(record.k + strike))
      call('ZADD', key('lost'), int(now + DECIDE_MS), id)
      losses[#losses + 1] = id
      losses[#losses + 1] = meta.sub
      losses[#losses + 1] = record.a
    end
  end
  local tier = call('GET', key('w', worker))
  if tier then
    call('HDEL', key('slots', tier), worker)
    if call('GET', key('solow', tier)) == worker then
      call('DEL', key('solow', tier))
    end
    ring(key('bell', tier))
  end
  call('ZREM', key('leases'), worker)
  call('DEL', key('w', worker), key('wj', worker), key('wc', worker), key('wb', worker))
  return losses
end

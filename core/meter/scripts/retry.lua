-- After a loss, the submitter's decision to run again. ARGV: now, request, attempt. Answers the standing.
local id, attempt = ARGV[2], tonumber(ARGV[3])
local record = read_record(id)
if record and record.s == 'lost' and record.a == attempt then
  local meta = record.meta
  if record.k >= STRIKES_MAX then
    settle(id, record, 'failed')
    call('XADD', base .. 'dead', 'MAXLEN', '~', DEAD_LETTERS_MAX, '*', 'request_id', id, 'tier', meta.tier,
      'organisation', meta.org, 'workspace', meta.ws, 'lost_ms', int(now))
  else
    call('HSET', base .. 'r:' .. id, 's', 'queued', 'a', int(attempt + 1))
    call('ZREM', base .. 'lost', id)
    enqueue(meta, id, record.seq, record.adm, record.k)
  end
end
return standing(id)

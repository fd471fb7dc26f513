-- After a loss, the submitter's decision to run again. ARGV: now, request, attempt. Answers the standing.
local id, attempt = ARGV[2], tonumber(ARGV[3])
local record = read_record(id)
if record and record.s == 'lost' and record.a == attempt then
  local meta = record.meta
  if record.k >= STRIKES_MAX then
    bury(id, record)
    settle(id, record, 'failed')
  else
    call('HSET', base .. 'r:' .. id, 's', 'queued', 'a', int(attempt + 1))
    call('ZREM', base .. 'lost', id)
    enqueue(meta, id, record.seq, record.adm, record.k)
  end
end
return standing(id)

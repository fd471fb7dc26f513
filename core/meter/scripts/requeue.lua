-- A dead letter runs once more: alone, for nobody, without charge. ARGV: now, letter, admission (msgpack), job (msgpack).
-- Answers 0 if the letter is gone.
if call('XDEL', base .. 'dead', ARGV[2]) == 0 then
  return 0
end
local meta = cmsgpack.unpack(ARGV[3])
local tier, org = meta.tier, meta.org
if call('HINCRBY', base .. 'act:' .. tier, org, 1) == 1 then
  call('HSET', base .. 'wt:' .. tier, org, int(meta.weight))
  call('HINCRBY', base .. 't:' .. tier, 'aw', int(meta.weight))
end
local seq = call('HINCRBY', base .. 't:' .. tier, 'seq', 1)
call('HSET', base .. 'r:' .. meta.id, 's', 'queued', 'a', 1, 'k', SOLO_STRIKES, 'adm', int(now), 'seq', int(seq),
  'res', 0, 'ep', int(epoch_now()), 'm', ARGV[3], 'j', ARGV[4])
call('ZADD', base .. 'open', int(meta.dl), meta.id)
enqueue(meta, meta.id, seq, now, SOLO_STRIKES)
return 1

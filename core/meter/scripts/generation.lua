-- Raise an organisation's generation; never lower it. ARGV: now, organisation, generation.
local before = call('HGET', base .. 'o:' .. ARGV[2], 'gen')
if not before or tonumber(before) < tonumber(ARGV[3]) then
  call('HSET', base .. 'o:' .. ARGV[2], 'gen', ARGV[3])
end
return 1

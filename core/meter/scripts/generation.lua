-- Raise an organisation's generation; never lower it. ARGV: now, organisation, generation.
local before = call('HGET', base .. 'gen', ARGV[2])
if not before or tonumber(before) < tonumber(ARGV[3]) then
  call('HSET', base .. 'gen', ARGV[2], ARGV[3])
end
return 1

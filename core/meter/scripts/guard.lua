-- What a connection does first. ARGV: now, the server's run_id. Writes only when that is new here: Redis was restarted,
-- wiped or replaced, so that the epoch that was opened before is closed.
local state = call('HMGET', base .. 'epoch', 'seen', 'run')
if state[1] ~= ARGV[2] then
  call('HSET', base .. 'epoch', 'seen', ARGV[2])
  if state[2] and state[2] ~= ARGV[2] then
    call('HSET', base .. 'epoch', 'open', '0')
  end
end
return 1

-- ARGV: now, number, the run_id that the caller saw. Answers whether this number is the open epoch now.
local number = tonumber(ARGV[2])
local state = call('HMGET', base .. 'epoch', 'number', 'seen', 'open')
if state[2] and state[2] ~= ARGV[3] then
  return 0  -- restarted between the caller's question and now
end
if number == num(state[1]) then
  return state[3] == '1' and 1 or 0
end
if number < num(state[1]) then
  return 0
end
call('HSET', base .. 'epoch', 'number', int(number), 'run', ARGV[3], 'seen', ARGV[3], 'open', '1')
call('DEL', base .. 'hungry')
return 1

-- Who ran dry since the last call, each once. ARGV: now. Answers organisation, needed, ...
local told = call('HGETALL', base .. 'hungry')
call('DEL', base .. 'hungry', base .. 'hbell')
return told

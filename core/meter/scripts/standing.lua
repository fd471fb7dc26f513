-- ARGV: now, request.
return standing(ARGV[2])

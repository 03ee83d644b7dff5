-- Sixteen requests at a time.
init = function(args)
  local requests = {}
  for i = 1, 16 do
    requests[i] = wrk.format("GET", "/")
  end
  all = table.concat(requests)
end

request = function()
  return all
end

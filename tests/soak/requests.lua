-- Requests of all kinds, most of them of the usual ones; some are refused, some fail. None is a HEAD,
-- after whose answer wrk waits for a body.
local json = '{"name": "lamp", "price": 12.5, "tags": ["a"], "description": "'
  .. string.rep("x", 900) .. '"}'
local large = string.rep("y", 100000)
local as_json = { ["Content-Type"] = "application/json" }

init = function(args)
  kinds = {}
  local function add(count, method, path, headers, body)
    for _ = 1, count do
      kinds[#kinds + 1] = wrk.format(method, path, headers, body)
    end
  end
  add(40, "GET", "/")
  add(20, "GET", "/users/42?verbose=true")
  add(10, "POST", "/items", as_json, json)
  add(10, "GET", "/waits")
  add(5, "GET", "/request")
  add(4, "POST", "/stream", {}, json)
  add(1, "POST", "/stream", {}, large)
  add(2, "GET", "/users/none")
  add(2, "GET", "/nowhere?x=%20")
  add(2, "POST", "/items", as_json, "{")
  add(2, "DELETE", "/")
  add(1, "GET", "/fails")
  at = 0
end

request = function()
  at = at % #kinds + 1
  return kinds[(at * 37) % #kinds + 1]
end

-- A body of 1 KiB of JSON.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"name": "lamp", "price": 12.5, "tags": ["a", "b", "c"], "description": "'
  .. string.rep("x", 946) .. '"}'

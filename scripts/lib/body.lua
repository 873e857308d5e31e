-- wrk: one POST body from a file, sent over and over.
--   wrk ... -s body.lua URL -- FILE JSON_BYTES
function init(args)
    local file = assert(io.open(args[1], "rb"))
    wrk.method = "POST"
    wrk.body = file:read("*all")
    wrk.headers["Inference-Header-Content-Length"] = args[2]
    wrk.headers["Content-Type"] = "application/octet-stream"
    file:close()
end

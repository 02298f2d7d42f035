// Preloaded into the suite's client, which knows nothing of proxies: sends its requests to FORWARD_PROXY (host:port) in
// absolute form (RFC 9112 section 3.2.2).
const http = require('node:http')

const [host, port] = process.env.FORWARD_PROXY.split(':')
const { request } = http
http.request = (options, ...rest) => request({
  ...options,
  host,
  hostname: host,
  port,
  path: `http://${options.host}${options.path}`,
  headers: { ...options.headers, Host: options.host }
}, ...rest)

// A Socket.IO server of the generation named by the first argument, steered by lines on stdin, telling on stdout.
// Arguments: package, then JSON options (allowEIO3, pingInterval, pingTimeout, transports).
'use strict'

const http = require('http')
const [, , generation, options] = process.argv
const settings = { path: '/interactive/socket.io', serveClient: false, ...JSON.parse(options || '{}') }
const tell = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + '\n')

const host = http.createServer()
const io = generation === 'socket.io-2'
  ? require('socket.io-2')(host, settings)
  : new (require('socket.io-4').Server)(host, settings)

let connections = 0

io.use((socket, next) => {
  next(socket.handshake.query.token === 'BAD' ? new Error('Invalid Token') : undefined)
})

io.on('connection', (socket) => {
  connections += 1
  tell('connection', { connections })
  socket.conn.on('packet', (packet) => packet.type === 'ping' && tell('ping'))
  socket.on('disconnect', (reason) => tell('disconnect', { reason }))
  socket.emit('joined', 'Socket joined successfully!')
})

let buffered = ''
process.stdin.on('data', (chunk) => {
  buffered += chunk
  const lines = buffered.split('\n')
  buffered = lines.pop()
  for (const line of lines) obey(JSON.parse(line))
})
process.stdin.on('end', () => process.exit(0))

function obey (command) {
  const sockets = Object.values(io.sockets.connected || Object.fromEntries(io.sockets.sockets))
  for (const socket of sockets) {
    if (command.emit) socket.emit(...command.emit)
    if (command.ask) socket.emit(...command.ask, () => tell('answered'))
    if ('disconnect' in command) socket.disconnect(command.disconnect)
  }
}

host.listen(0, '127.0.0.1', () => tell('listening', { port: host.address().port }))

// Package streammanager is the Stream Manager of AWS IoT Greengrass v2 on leat's durable streams: a component that uses one
// of the official SDKs runs unchanged. Server is the door, which speaks the protocol (package wire has its bytes); Manager
// is the behaviour behind it. Service is what the one needs of the other.
//
// # Guarantees of the door
//
//   - Each request is answered exactly once, with the id that it came with, within 55 s, or never when that would be too
//     late: after 59 s, or after readTimeoutMillis where a read asked for more. A client's reader does not survive an answer
//     to a request that it has given up.
//   - A response leaves in one write, in whatever order requests end. Requests with equal ids are answered in the order in
//     which they came, since one of the clients has the same id for all.
//   - Appends of one connection to one stream keep their order. What is pipelined behind a create, an update or a delete
//     finds that done. A read that waits holds nothing up.
//   - A request that fails, is malformed, too large or unknown costs no more than itself, as long as its id can be had;
//     otherwise the connection is closed, for nobody could tell what an answer belongs to.
//   - At a stop everything in flight is answered: reads with what is there, the rest as it ends, or with ServerTimeout a
//     second later. Then connections are closed.
//
// # Limits, and what happens at them
//
//   - stream_manager.max_connections, networks: refused before a byte is read. 10 s for the handshake, and 16 KiB.
//   - 1,024 requests in flight, or 256 KiB of answers that the client has not read: the connection is not read until there
//     is room (TCP back-pressure). An answer that the client's kernel does not take for 30 s ends the connection.
//   - 32 MiB for a request: RequestPayloadTooLarge, and the frame is passed over.
//   - 64 MiB for all requests above 64 KiB that are being read, about: a connection waits 30 s for its share and ends.
//   - 10,000 reads that wait, of all connections: ServerTimeout.
//   - 60 s without a byte inside of a frame: the connection ends. Between frames it may be silent for ever; TCP keep-alive
//     finds dead ones.
//
// What the answers of reads take is bounded by Manager.Read for each.
//
// # Who may
//
// The protocol has no TLS, and a token goes over the wire as it is. On loopback everybody may, unless tokens are asked for;
// elsewhere a token is needed, from a network that was named. A token is for some streams, by pattern; others do not exist
// for it: List leaves them out, and all else is Unauthorized whether they exist or not.
//
// # Goroutines and locks of the door
//
// Run owns one goroutine that accepts, one that looks for late requests, and per connection one that reads (conn.serve), one
// per read of messages, and one while something waits to be written (outbox.drain). All have ended when Run returns; the
// callback of an append may come later and is then forgotten. An append has no goroutine: the one that commits the log
// encodes and writes the answer, without blocking.
//
// conn.mu guards what is in flight, outbox.mu what waits to be written, Server.mu the set of connections. None is taken
// while another of these is held, but for Server.mu before a connection's stop, which takes none; no one is held over
// anything that blocks.
package streammanager

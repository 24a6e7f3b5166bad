// Package wire is the data plane of a node: it carries requests to other members and answers theirs, over TCP
// connections that it opens, secures, watches and closes.
//
// The side that dials a connection sends requests on it, and the other side answers. The dialling side sends Magic,
// both sides run TLS if there is a Trust, and both send a Hello. If the hellos do not fit together, the connection
// ends with a reason on both sides. After that it carries frames (package codec): many requests at once, answered in
// any order.
//
//	file           what it holds
//	plane.go       Plane: members, namespaces, Call and Send
//	peer.go        a member as this node calls it: its connections and the attempts to open them
//	breaker.go     when a member is bypassed, and when it is called again
//	link.go        the calling end of a connection: calls, deadlines, signs of life (silence.go, acks.go)
//	serve.go       the answering end of a connection
//	outbox.go      the sending half of both: one writer for many senders, which never block in a write
//	frames.go      the receiving half of both
//	handshake.go   hellos (hello.go) and TLS (secured.go)
//
// Deadlines:
//
//   - The handshake takes at most HelloTimeout on each side.
//   - A call ends with its context, or at most two ticks of 10 ms after its timeout. It fails earlier, with
//     ErrUnreachable, if its peer is silent for half a second or the connection ends.
//   - A peer that owes an answer is pinged every 100 ms. After two seconds of silence the connection is given up.
//     Silence does not count while this node itself could not listen, nor, for a while, while the peer's machine
//     acknowledges.
//   - While a breaker is open, calls fail at once and one goroutine probes the peer, with pauses of up to two seconds.
//   - A frame that has begun must bring 16 KiB in every FrameTimeout, and a write must make progress in every
//     WriteTimeout.
//
// Limits:
//
//   - A frame has at most Config.ValueLimit bytes, or 1 MiB if that is more, beside its overhead. A claimed length
//     allocates nothing: buffers grow as bytes arrive.
//   - Answers that callers still hold, requests that wait for a handler, and answers for which their connection has no
//     room share Config.Budget. What does not fit is answered with StatusBusy, or fails with ErrBusy. Of the connections
//     without room, the one whose peer has read nothing for longest is then closed, if that is a second or more.
//   - 4 MiB and one frame may wait to be sent on a connection. All connections together may queue Config.Budget
//     beyond 64 KiB each; then the connection whose peer has not read for longest is closed.
//   - 65,536 calls may wait on a connection. 4,096 connections are served at once, Config.Sessions of one member.
//
// What others can do: without a certificate of the cluster, a stranger can only begin a handshake; Accept reports
// when it is over, so that the port can bound how many are undecided. A member can hold its connections and its part
// of the budget. A malformed frame ends its connection, with a reason; an unknown kind or status costs only its own
// call. A handler that panics answers StatusFailed.
//
// Who closes what: the Plane closes every connection that it has opened or accepted: when it fails, when Confine drops
// the member that it was opened to, or in Close. Close joins every goroutine, or those that end before its context does.
// Only members that Allow has named can be called once it has been called. A buffer of an answer belongs to the caller
// until Response.Release.
//
// wire imports codec and ring, and of peer/internal hearing, loglimit and trust. It does not know gossip, views or
// the Node.
package wire

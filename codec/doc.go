// Package codec turns values and requests into bytes, and bytes that may be hostile back
// into values and requests. It opens no connections and keeps no state.
//
// # Values
//
// A Codec[V] encodes the values of one namespace. Msgpack is the default; JSON is for
// values that something else reads; Raw is for bytes that are encoded already. Compressed
// wraps any of them. A codec of your own, for protobuf say, has three methods.
//
// Msgpack writes structs as arrays of their fields, so the bytes mean nothing without the
// type. Schema describes the type: namespaces whose schemas differ never read each other's
// bytes, and a rollout that adds a field costs misses, never a wrong value.
//
// # Hostile bytes
//
// A MessagePack value of five bytes can say that four billion elements follow, and a
// megabyte can nest a million levels deep. CheckMsgpack reads the bytes once, allocates
// nothing, and refuses that before a decoder sees it. The codec's own check knows V's type
// too, and adds up what decoding would allocate: a megabyte of nils does not become a
// million structs. Go's memory is wider than MessagePack, so an honest encoding may cost
// some 150 times its length (many small maps); beyond 256 times it is refused, and Append
// refuses it already.
//
// All errors that malformed bytes cause wrap ErrValue or ErrFrame.
//
// # Frames
//
// Request and Response cross connections as frames: a length, a kind, a number, a body.
// They are written and read by hand, without allocation when the structs are reused; what is
// decoded borrows the bytes it came from. FrameLength refuses a length before anybody
// allocates it.
//
// # Versions
//
// A frame that is whole but says what only a later version knows is no malformed one: it gives
// ErrUnsupported, which is answered with StatusUnsupported, and an unknown status becomes that. So kinds,
// flags of requests, modes, scopes and statuses may be added without a new protocol version; a flag that is
// added to an answer must be one that may be overlooked. Whatever else changes the bytes needs one.
package codec

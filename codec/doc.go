// Package codec turns values and requests into bytes, and possibly hostile bytes back into values and
// requests. It opens no connections and keeps no state.
//
// # Values
//
// A Codec[V] encodes the values of one namespace. Msgpack is the default. JSON is for values that other
// programs read. Raw is for bytes that are already encoded. Compressed wraps any of them. A codec of your
// own, for protobuf say, has three methods.
//
// Msgpack writes structs as arrays of their fields, so the bytes mean nothing without the type. Schema
// describes the type. Namespaces whose schemas differ never read each other's bytes, so a rollout that adds a
// field costs misses but never yields a wrong value.
//
// # Hostile bytes
//
// A MessagePack value of five bytes can claim that four billion elements follow, and a megabyte can nest a
// million levels deep. CheckMsgpack reads the bytes once, allocates nothing, and rejects such input before a
// decoder sees it. The codec's own check also knows V's type and adds up what decoding would allocate: a
// megabyte of nils does not become a million structs. Go values take more memory than their MessagePack
// encoding, so decoding an honest encoding may cost some 150 times its length (many small maps). Beyond 256
// times, Decode rejects it, and Append rejects it in the first place.
//
// All errors that malformed bytes cause wrap ErrValue or ErrFrame.
//
// # Frames
//
// Request and Response cross connections as frames: a length, a kind, a number, a body. Hand-written code
// encodes and decodes them, without allocation when the structs are reused. Decoded structs borrow the bytes
// they came from. FrameLength rejects an invalid length before anything of that length is allocated.
//
// # Versions
//
// A complete frame with contents that only a later version knows is not malformed. Decoding it gives
// ErrUnsupported, and the member answers it with StatusUnsupported. An unknown status decodes to
// StatusUnsupported. So kinds, flags of requests, modes, scopes and statuses may be added without a new
// protocol version. A flag may be added to an answer only if receivers may ignore it. Any other change of the
// bytes needs a new version.
package codec

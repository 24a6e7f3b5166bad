package codec

// FlagTrace, of a get: Trace is set. On other requests the bit is FlagRelay.
const FlagTrace = FlagRelay

// Trace is what a tracer needs to link one span to another, in the layout of W3C Trace Context: 16 bytes of
// trace id, 8 of span id, 1 of flags. The zero Trace means no trace.
type Trace [25]byte

func (d *decoder) trace() (t Trace) {
	if len(d.b) < len(t) {
		d.fail("cut short")
		return t
	}
	copy(t[:], d.b)
	d.b = d.b[len(t):]
	return t
}
